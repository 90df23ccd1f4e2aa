"""Starts that cannot succeed, on the real engine: each ends with one line that names what to change."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from engine.models import prepare
from tests.program import KEPT, KERNELS, MODELS, ROOT, free_port, inherited

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MEMORY = 8 * 2**30
"""Bytes of addresses: the largest process has used 3 GB when it takes the KV cache."""
RAN_OUT = "host memory ran out"


def prepared(model: str):
    """Return a model's folder, made without a limit on memory."""
    return prepare(model, KEPT, lambda *progress: None)


def run(folder, command: str, *options: str, memory: int | None = None) -> tuple[int, str]:
    """Run `chatserver` to its end; return the exit code and what it printed. `memory`: a limit in bytes."""
    (folder / "data").mkdir()
    (folder / "data" / "models").symlink_to(MODELS)
    where = ["--data-dir", str(folder / "data"), "--port", str(free_port())]
    limit = None if memory is None else lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", command, *where, *options],
        cwd=ROOT,
        env={**inherited(), "ENGINE_KERNEL_CACHE": str(KERNELS)},
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def last_words(printed: str) -> str:
    """Return the line that ended the program: it is the last and the only one of its kind."""
    (said,) = (line for line in printed.splitlines() if line.startswith("chatserver: "))
    assert printed.splitlines()[-1] == said
    return said


def no_model(folder, config) -> None:
    """Take the configuration away."""
    (folder / "config.json").unlink()


def truncated(folder, config) -> None:
    """Cut a weight file, as a transfer that broke off does."""
    file = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)


def other_tokenizer(folder, config) -> None:
    """Have a smaller vocabulary than the tokenizer."""
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}))


def unknown_architecture(folder, config) -> None:
    """Name a class that SGLang has not."""
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NopeForCausalLM"]}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_model, "config.json is missing"),
        (truncated, "its header says"),
        (other_tokenizer, "the model a vocabulary of 1000: it is another model's"),
        (unknown_architecture, "does not serve the architecture NopeForCausalLM"),
    ],
)
def test_a_folder_that_cannot_be_served(tmp_path, spoil, words):
    """Told in one line, before SGLang is imported."""
    folder = tmp_path / "model"
    shutil.copytree(prepared("tiny-deepseek-v3"), folder)
    spoil(folder, json.loads((folder / "config.json").read_text()))
    code, printed = run(tmp_path, "serve", "--model", str(folder))
    assert code == 1
    assert words in last_words(printed)
    assert str(folder) in last_words(printed)
    assert "engine: loading" not in printed


def test_a_fault_that_only_the_scheduler_finds(tmp_path):
    """A value that passes every check and that SGLang's model refuses: told once, not tried again."""
    shutil.copytree(prepared("tiny-deepseek-v3"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "hidden_act": "nope"}))
    code, printed = run(tmp_path, "serve", "--model", str(tmp_path / "model"))
    assert code == 1
    assert "ValueError: Unsupported activation: nope" in last_words(printed)
    assert "starting it again" not in printed


@pytest.fixture
def endless(tmp_path) -> str:
    """A model with such a window that memory runs out where the KV cache is taken, and nowhere else.

    Four windows are 48 GB, or what the machine has; under MEMORY there are 5 GB left for them when their turn comes.
    """
    folder = tmp_path / "model"
    shutil.copytree(prepared("smollm2-135m-instruct"), folder, copy_function=os.symlink)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2**18}))
    return str(folder)


def test_memory_that_runs_out_at_the_start(tmp_path, endless):
    """Under a real limit on the processes' memory: the line says which setting makes the program smaller."""
    code, printed = run(tmp_path, "serve", "--model", endless, memory=MEMORY)
    assert code == 1
    assert RAN_OUT in last_words(printed)
    assert "CHATSERVER_CONTEXT" in last_words(printed)


def test_the_doctor_tries_the_start(tmp_path, endless):
    """Memory that runs out in the start that the doctor tries: its line has the setting to change."""
    code, printed = run(tmp_path, "doctor", "--engine", "--model", endless, memory=MEMORY)
    (line,) = (line for line in printed.splitlines() if line.startswith("fail"))
    assert code == 1
    assert "engine " in line
    assert RAN_OUT in line
    assert "CHATSERVER_CONTEXT" in line
