"""The doctor's probes of the machine: each gives one finding, whatever it meets."""

import os
import shutil
import sys
from dataclasses import replace

import pytest

from engine import doctor
from engine.doctor import Level
from engine.profile import load

GPU = "NVIDIA H200, 143771, 570.86.15"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Put an nvidia-smi of our own into the path: it prints, fails, or sleeps."""

    def install(body: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


@pytest.fixture
def no_smi(monkeypatch):
    """Take a real nvidia-smi away."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_this_machine_is_fine():
    """What the tests run on is what the program needs."""
    for probe in (doctor.python, doctor.packages, doctor.platform_plugin):
        assert probe().level is Level.OK, probe()
    assert doctor.processor().level in (Level.OK, Level.WARN)


def test_no_gpu_is_no_fault(no_smi):
    """Without a profile the engine runs on the CPU."""
    found = doctor.gpus(None)
    assert (found.level, "runs on the CPU" in found.detail) == (Level.OK, True)


def test_gpus_of_a_profile(smi):
    """Eight are needed, and named with their driver."""
    smi(f"print('{GPU}\\n' * 8, end='')")
    found = doctor.gpus(load("h200x8"))
    assert (found.level, found.detail) == (Level.OK, "8 x NVIDIA H200, 140 GiB, driver 570.86.15")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"print('{GPU}')", "nvidia-smi lists 1"),
        ("print('No devices were found'); sys.exit(6)", "No devices were found"),
        (
            "print('NVIDIA-SMI has failed because it could not communicate', file=sys.stderr); sys.exit(9)",
            "failed",
        ),
        ("print('garbage')", "nvidia-smi lists 0"),
    ],
)
def test_too_few_gpus(smi, body, reason):
    """A profile's GPUs that are not there fail, with nvidia-smi's own reason."""
    smi(body)
    found = doctor.gpus(load("h200x8"))
    assert found.level is Level.FAIL
    assert reason in found.detail
    assert found.advice


def test_nvidia_smi_that_hangs(smi, monkeypatch):
    """A driver that does not answer costs its time-out, no more."""
    monkeypatch.setattr(doctor, "SMI_SECONDS", 0.2)
    smi("time.sleep(60)")
    assert "did not answer within 0.2 s" in doctor.gpus(load("gpu1")).detail


def test_gpus_of_one_node(smi):
    """Of a deployment over several nodes each needs its share."""
    smi(f"print('{GPU}\\n' * 8, end='')")
    assert doctor.gpus(load("h800x16")).level is Level.OK


def test_model_on_the_gpus_that_are_there(smi, tmp_path):
    """DeepSeek-V3 on eight H200 fits; on eight GPUs of half the memory it fails."""
    smi(f"print('{GPU}\\n' * 8, end='')")
    name, profile = "deepseek-v3", load("h200x8")
    found = doctor.memory(name, tmp_path / "none", None, profile)
    assert found.level is Level.OK
    assert "97.6 GiB of weights on each GPU, 2,4" in found.detail
    smi("print('NVIDIA H100, 81559, 570.1\\n' * 8, end='')")
    assert doctor.memory(name, tmp_path / "none", None, profile).level is Level.FAIL


def test_model_in_host_memory(tmp_path):
    """What the engine would take: weights in float32 and a cache of four windows."""
    found = doctor.memory("smollm2-135m-instruct", tmp_path / "none", 4096, None)
    assert "16,384 tokens of cache" in found.detail


def test_too_little_host_memory(tmp_path, monkeypatch):
    """A warning with the setting to change: the system may still find some."""
    monkeypatch.setattr(doctor, "_free_memory", lambda: 2**30)
    found = doctor.memory("smollm2-135m-instruct", tmp_path / "none", None, None)
    assert found.level is Level.WARN
    assert "CONTEXT=" in found.advice


def test_profile_that_cannot_run_the_model(tmp_path, smi):
    """Said before anything is loaded."""
    smi(f"print('{GPU}')")
    profile = replace(load("gpu1"), arguments={"tp_size": 2})
    found = doctor.memory("smollm2-135m-instruct", tmp_path / "none", None, profile)
    assert (found.level, "9 attention heads" in found.detail) == (Level.FAIL, True)


def test_profile_of_another_family(tmp_path):
    """Also on a CPU, where nothing else would notice."""
    found = doctor.memory("smollm2-135m-instruct", tmp_path / "none", None, load("cpu-tp2-ep2"))
    assert (found.level, found.detail) == (
        Level.FAIL,
        "profile cpu-tp2-ep2 is for deepseek_v3 models, this one is llama",
    )


def test_window_that_the_model_has_not(tmp_path):
    """The start would be refused: so says the doctor."""
    found = doctor.memory("smollm2-135m-instruct", tmp_path / "none", 100_000, None)
    assert found.level is Level.FAIL
    assert "100000 tokens was asked for" in found.detail


def test_model_folders(tmp_path):
    """Missing, empty, or not yet prepared: each says what to do."""
    assert doctor.model("scripted", None).level is Level.OK
    assert "at the first start" in doctor.model("smollm2-135m-instruct", tmp_path / "none").detail
    assert "set MODEL=" in doctor.model("/nowhere", tmp_path / "none").advice
    assert "config.json is missing" in doctor.model(str(tmp_path), tmp_path).detail


def test_missing_package(monkeypatch):
    """Named, with the command that installs it."""

    def version(name: str) -> str:
        if name == "sglang":
            raise doctor.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = doctor.packages()
    assert (found.level, found.detail, found.advice) == (
        Level.FAIL,
        "sglang not installed",
        "run: make setup",
    )


def test_other_version_than_pinned(monkeypatch):
    """SGLang's insides are used: another version is not tried."""
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.5.99")
    found = doctor.packages()
    assert found.level is Level.FAIL
    assert "made for sglang 0.5.23" in found.advice
