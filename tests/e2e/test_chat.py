"""`chatserver chat` on the whole program, typed into a real pseudo-terminal and through pipes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pexpect
import pytest

from chatserver.__main__ import main
from tests.program import ROOT, Program

pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, "-m", "chatserver", "chat"]
PROMPT = re.escape("❯ ")
LONG = "Count to one hundred.\r"
"""The scripted engine answers this with 130 tokens if nothing was said before."""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A scripted engine so slow that there is time to press keys."""
    pace = {"SCRIPTED_TOKENS_PER_SECOND": "20", "SCRIPTED_TTFT_MS": "20"}
    with Program(tmp_path_factory.mktemp("chat") / "data", model="scripted", **pace) as program:
        program.wait_ready()
        yield program


@pytest.fixture
def environment(program, tmp_path):
    own = {"CHATSERVER_URL": program.url, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm-256color"}
    return {**os.environ, **own}


@pytest.fixture
def terminal(environment):
    """Open a terminal with a chat in it; all are closed at the end."""
    opened = []

    def open_(*arguments: str) -> pexpect.spawn:
        chat = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], *arguments],
            env=environment,
            cwd=str(ROOT),
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=60,
            # it is inherited as ignored where the tests run under nohup
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        opened.append(chat)
        chat.expect("/help")
        return chat

    yield open_
    for chat in opened:
        chat.close(force=True)


def piped(environment, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=text, env=environment, cwd=ROOT, text=True, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_an_evening_at_a_terminal(terminal):
    """Ask, stop with Ctrl-C, ask for another answer, stop it by typing, look at figures and history, leave."""
    chat = terminal()
    chat.expect(PROMPT)
    chat.send(LONG)
    chat.expect("waiting for the server")
    time.sleep(1)
    chat.sendintr()
    chat.expect("stopped")
    chat.expect(PROMPT)
    chat.send("/regenerate\r")
    chat.expect("waiting for the server")
    time.sleep(0.5)
    chat.send("/stop\r")
    chat.expect("stopped")
    chat.expect(PROMPT)
    chat.send("/stats\r")
    chat.expect("status +cancelled")
    chat.expect(r"window +\d+ of \d+ tokens sent")
    chat.expect(PROMPT)
    chat.send("half a thought")
    chat.sendintr()
    chat.expect(PROMPT)
    chat.send("/history\r")
    chat.expect("Count to one hundred")
    chat.expect(PROMPT)
    chat.send("And then?\r")
    chat.expect("waiting for the server")
    chat.send("typed ahead\r")
    chat.expect(r"\d+ tokens · \d+ of \d+ prompt tokens from the cache")
    chat.expect("typed ahead")  # it was not shown while it was typed
    chat.sendintr()
    chat.expect(PROMPT)
    chat.send("/nonsense\r")
    chat.expect("expected one of")
    chat.expect("/quit")
    chat.expect(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_a_closed_terminal_is_come_back_to_in_mid_answer(program, terminal):
    """The terminal goes away (SIGHUP) while an answer is written; the next one shows the rest, and the talk goes on."""
    chat = terminal()
    chat.expect(PROMPT)
    chat.send(LONG)
    chat.expect("waiting for the server")
    time.sleep(0.5)
    program.kill(
        "engine", signal.SIGSTOP
    )  # on a busy machine it would have ended before the next one is there
    chat.kill(signal.SIGHUP)
    chat.expect(pexpect.EOF)
    again = terminal()
    again.expect("Count to one hundred")
    program.kill("engine", signal.SIGCONT)
    again.expect(r"\d+ of \d+ prompt tokens from the cache")
    again.expect(PROMPT)
    again.send("/new\r")
    again.expect("A new conversation")
    again.send("/resume\r")
    again.expect("1  Count to one hundred")
    again.expect(PROMPT)
    again.send("/resume 1\r")
    again.expect("Count to one hundred")


def test_web_is_killed_while_an_answer_is_written(program, terminal):
    """The user reads that the connection is lost, and then the rest of the answer."""
    chat = terminal("--new")
    chat.expect(PROMPT)
    chat.send(LONG)
    chat.expect("waiting for the server")
    time.sleep(1)
    old = program.kill("web")
    chat.expect("connection lost")
    chat.expect(r"\d+ of \d+ prompt tokens from the cache")
    program.wait_replaced("web", old)


def test_pipes_get_plain_text(environment):
    """Each line is a message; stdout has the answers and nothing else, without colours; notes are on stderr."""
    done = piped(environment, "Hello\n/stats\nAnd again?\n")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert re.search(r"first token +\d+ ms", done.stderr)


def test_one_message_on_the_command_line(environment):
    """It is answered, and the program ends."""
    done = piped(environment, "", "What", "is this?")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


def test_ctrl_c_in_a_pipe_stops_the_answer_only(environment):
    """SIGINT in an answer stops it; the next line is still answered."""
    chat = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )
    chat.stdin.write(b"Count to one hundred.\n")
    chat.stdin.flush()
    first = chat.stdout.read(4)
    chat.send_signal(signal.SIGINT)
    rest, _ = chat.communicate(b"Hello\n", timeout=30)
    assert chat.returncode == 0
    stopped, _, answer = (first + rest).partition(b"\n")
    assert len(stopped) < 600  # of about 700
    assert answer.strip()


@pytest.mark.parametrize(
    ("url", "arguments", "words"),
    [
        ("http://127.0.0.1:9", ["Hi"], "start one with"),
        ("localhost", ["Hi"], "url: expected http"),
        (None, ["--conversation", "conv_unknown", "Hi"], "conv_unknown"),
        (None, ["--model", "gpt-9", "Hi"], "gpt-9"),
    ],
)
def test_mistakes_are_one_line(program, tmp_path, monkeypatch, capsys, url, arguments, words):
    """No server, a wrong address, an unknown conversation, a wrong model: one line, exit code 1."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["chat", "--url", url or program.url, *arguments]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert len(told.err.strip().splitlines()) <= 2  # one of them may tell what is waited for
