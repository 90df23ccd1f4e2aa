"""The command line, as typed."""

import os
import subprocess
import sys
import time

import pytest

from chatserver import __main__ as cli
from chatserver.errors import StartupError, Unavailable
from chatserver.settings import options


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with none of our settings in its environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CHATSERVER_", "REDIS_"))}
    return subprocess.run(
        [sys.executable, "-m", "chatserver", *arguments],
        env={**inherited, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def failing(monkeypatch):
    """Let the chosen command raise an error of our choice."""

    def fail(error: BaseException) -> None:
        def raise_it(*_: object) -> None:
            raise error

        monkeypatch.setattr(cli, "_run", raise_it)

    return fail


def test_version_is_quick():
    """`--version` imports nothing heavy: it takes little longer than Python itself."""
    seconds, bare = [], []
    for _ in range(5):
        started = time.perf_counter()
        done = run("--version")
        between = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True, timeout=60)
        seconds.append(between - started)
        bare.append(time.perf_counter() - between)
    assert done.stdout.startswith("chatserver ")
    assert min(seconds) < 40 * min(bare)  # 10 times; importing an engine takes hundreds of them


def test_importing_the_command_line_is_cheap():
    """No server and no engine is imported before a command is known."""
    heavy = ["torch", "sglang", "starlette", "uvicorn", "redis", "numpy", "asyncio"]
    code = f"import sys, chatserver.__main__; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--prot", "80"], "unrecognized arguments: --prot 80; see chatserver --help"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "COMMAND"),
        (["serve", "--port", "http"], "--port: expected a port from 0 to 65535, got 'http'"),
        (["store", "--redis-url", "redis://x"], "there is no embedded store to run"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, message):
    """A mistyped command is not answered with a page of usage, let alone a traceback."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("chatserver: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_variable_is_one_line():
    """A mistyped variable is not ignored."""
    done = run("serve", CHATSERVER_MODLE="x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean CHATSERVER_MODEL" in done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_lists_every_setting(command):
    """Help names each flag and each variable."""
    text = " ".join(run(command, "--help").stdout.split())
    assert options()
    for option in options():
        assert f"{option.flag} {option.name.upper()}" in text
        assert option.variable in text


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StartupError("the disk\nis full"), 1, "chatserver: the disk is full"),
        (StartupError("no such model", exit_code=3), 3, "chatserver: no such model"),
        (Unavailable("the store is gone"), 1, "chatserver: the store is gone"),
        (
            ModuleNotFoundError("no", name="sglang.srt"),
            3,
            "chatserver: sglang is not installed; run: make setup",
        ),
    ],
)
def test_failure_is_one_line(failing, capsys, error, code, line):
    """Whatever ends a command is one line on stderr that says what to do, and its exit code."""
    failing(error)
    assert cli.main(["serve"]) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_interrupt_is_silent(failing, capsys):
    """Ctrl-C before a role has its own handlers: no traceback."""
    failing(KeyboardInterrupt())
    assert cli.main(["web"]) == 130
    assert capsys.readouterr() == ("", "")


def test_who_reads_may_leave():
    """`chatserver plan | head` ends without a word, as other programs do."""
    command = [sys.executable, "-m", "chatserver", "plan", "--gpus", "8xH200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_our_own_missing_module_is_a_bug(failing):
    """A module of ours that is missing is no matter of `make setup`."""
    failing(ModuleNotFoundError("no", name="chatserver.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["web"])
