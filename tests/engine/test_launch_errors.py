"""A start that runs out of memory ends in the setting to change."""

import os
import subprocess
import sys

import pytest

from engine.contract import EngineError, ModelUnusable, StartRefused
from engine.launch_errors import advice, explained
from engine.launch_record import VARIABLE, recorded

DIED = (
    "Rank 0 scheduler died during initialization (exit code: {}). If exit code is -9 (SIGKILL), a common cause "
    "is the OS OOM killer. Run `dmesg -T | grep -i oom` to check."
)
"""SGLang's own words (`entrypoints/engine.py`)."""


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (
            "Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.7. Raise "
            "--mem-fraction-static above 0.812 (minimum viable = …",
            "mem_fraction_static above 0.812",
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
            "raise mem_fraction_static",
        ),
        (
            "Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB",
            "lower cuda_graph_max_bs_decode",
        ),
        (
            "File model_runner.py, in load_model\n  torch.OutOfMemoryError: CUDA out of memory.",
            "use more GPUs or a smaller model",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate",
            "lower mem_fraction_static or chunked",
        ),
        (
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried",
            "CHATSERVER_CONTEXT",
        ),
        (
            "RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
            "CHATSERVER_CONTEXT",
        ),
        ("OSError: [Errno 12] Cannot allocate memory", "CHATSERVER_CONTEXT"),
        ("RuntimeError: can't start new thread", "ulimit -v"),
        (DIED.format(-9), "the system killed"),
        ("ValueError: Not enough host memory available. Requesting 400 GB", "hicache_ratio"),
    ],
)
def test_memory_that_ran_out(text, setting):
    """Each message of SGLang, torch and the system has its setting."""
    assert setting in (advice(text) or "")


@pytest.mark.parametrize(
    "text", ["", "the model is no model", DIED.format(0), DIED.format(1), DIED.format(-11), "KeyError: 9"]
)
def test_other_errors(text):
    """What is not about memory gets no advice about it."""
    assert advice(text) is None


def test_explained():
    """The advice comes first, what was said after it; any other error stays as it is."""
    died = EngineError("Rank 0 scheduler died during initialization (exit code: 0)")
    said = explained(died, "Scheduler hit an exception: … torch.OutOfMemoryError: CUDA out of memory.")
    assert str(said).startswith("GPU memory ran out: lower mem_fraction_static")
    assert str(died) in str(said)
    assert explained(died, "all is well, they said") is died


def test_what_the_schedulers_died_of():
    """It is in their log only; the last one counts, and a type and its message are enough."""
    died = EngineError(
        "loading m: Rank 0 scheduler died during initialization (exit code: 0). If exit code is -9"
    )
    log = (
        "Traceback\n  File x\nKeyError: 'a'\n\nDuring …\nValueError: Cannot find model module. 'X' is not …\n"
    )
    assert str(explained(died, log)) == (
        "loading m: Rank 0 scheduler died during initialization (exit code: 0): "
        "ValueError: Cannot find model module. 'X' is not …"
    )
    told = "safetensors._safetensors_rust.SafetensorError: incomplete metadata"
    assert str(explained(EngineError("it died"), told)) == "it died: SafetensorError: incomplete metadata"


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("ValueError: rope type nope is not known", StartRefused),
        ("safetensors._safetensors_rust.SafetensorError: incomplete metadata", StartRefused),
        ("OSError: [Errno 12] Cannot allocate memory", StartRefused),
        ("ValueError: no such layer\nRuntimeError: connection closed by peer", StartRefused),
        ("torch.distributed.DistNetworkError: address in use", EngineError),
        ("RuntimeError: something else", EngineError),
        ("", EngineError),
    ],
)
def test_whether_another_start_would_help(log, kind):
    """A wrong value is wrong again; a port that is taken, a rank that was lost, may not be."""
    assert type(explained(EngineError("it died"), log)) is kind


def test_what_counts_of_several_ranks():
    """The one that died of a value, not the others that lost it, whoever wrote last."""
    log = "ValueError: no such layer\nRuntimeError: connection closed by peer\n"
    assert str(explained(EngineError("it died"), log)) == "it died: ValueError: no such layer"


def test_what_is_known_of_the_model_stays():
    """A wrong folder is told in its own words; memory that ran out meanwhile comes first."""
    wrong = ModelUnusable("config.json is missing")
    assert explained(wrong, "RuntimeError: later") is wrong
    assert isinstance(explained(ModelUnusable("importing SGLang: Cannot allocate memory"), ""), StartRefused)


def test_schedulers_errors_reach_their_parent():
    """A process that is started meanwhile logs as SGLang's scheduler does; the parent reads why it failed."""
    code = (
        "import logging; from engine import launch_record; launch_record.record(); "
        "logging.basicConfig(force=True, level='INFO'); "
        "log = logging.getLogger('sglang.srt.managers.scheduler'); "
        "log.info('fine'); log.error('Scheduler hit an exception: out of luck')"
    )
    with recorded() as said:
        assert said() == ""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        assert "out of luck" in said()
        assert "fine" not in said()
    assert VARIABLE not in os.environ
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_scheduler_that_fails_after_the_start_can_still_say_so():
    """The record is gone by then; logging the reason must not fail in its place."""
    code = (
        "import logging, sys; from engine import launch_record; launch_record.record(); "
        "print('recording', flush=True); sys.stdin.read(); "
        "logging.getLogger('sglang.srt.managers.scheduler').error('late'); print('told')"
    )
    with recorded():
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"recording\n"
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"told\n"), err.decode()
