"""The supervisor, seen from outside: real processes, real signals, fake roles."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PROGRAM = Path(__file__).with_name("fake_program.py")
ROLES = ("store", "engine", "web")


class Supervised:
    """A fake program in a data folder of its own."""

    def __init__(self, data_dir: Path, **behaviours: str) -> None:
        self.data_dir = data_dir
        command = [sys.executable, str(PROGRAM), str(data_dir), *(f"{k}={v}" for k, v in behaviours.items())]
        self._output = data_dir.parent / f"{secrets.token_hex(4)}.txt"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._output.read_text()

    def pid(self, role: str) -> int | None:
        try:
            return int((self.data_dir / "run" / f"{role}.pid").read_text())
        except FileNotFoundError:
            return None

    def is_ready(self) -> bool:
        return "(Ctrl-C ends it)" in self.output()

    def events(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in (self.data_dir / "events").read_text().splitlines()]

    def wait_ended(self, timeout: float = 60) -> tuple[int, str, str]:
        """Return exit code, standard output, standard error."""
        _, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, self.output(), err


def wait_until(condition, timeout=60):
    """Poll: what happens in other processes has no event here."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie, waiting for whoever adopted it, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def supervised(tmp_path):
    """Start fake programs; whatever a failed test leaves is killed."""
    started = []

    def start(**behaviours: str) -> Supervised:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        started.append(Supervised(data_dir, **behaviours))
        return started[-1]

    yield start
    for program in started:
        groups = [program.process.pid, *filter(None, map(program.pid, ROLES))]
        if program.process.poll() is None:
            for group in groups:
                os.killpg(group, signal.SIGKILL)
            program.process.communicate()


def running(start, **behaviours):
    """Start a program and return it and its roles' process ids once all are ready."""
    program = start(**behaviours)
    wait_until(program.is_ready)
    return program, {role: wait_until(lambda role=role: program.pid(role)) for role in ROLES}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_ctrl_c_ends_everything_in_order(supervised, loop):
    """One SIGINT: web and engine end first, the store last, exit code 0, no process or pid file is left."""
    program, pids = running(supervised, loop=loop)
    program.process.send_signal(signal.SIGINT)
    code, out, err = program.wait_ended()
    assert (code, err) == (0, "")
    assert not any(map(is_alive, pids.values()))
    assert not list((program.data_dir / "run").glob("*.pid"))
    events = program.events()
    assert events.index("start store") < events.index("start web")
    assert events[-1] == "end store"
    assert set(events[-3:-1]) == {"end web", "end engine"}
    assert re.search(r"store ready \(\d+\.\d s\)", out)
    assert re.search(r"Chat at http://127\.0\.0\.1:\d+/", out)
    assert "engine | WARNING: hello from engine" in out


@pytest.mark.parametrize("role", ROLES)
def test_killed_role_is_started_again(supervised, role):
    """SIGKILL of a role: another life follows, the others are not touched, the death is reported."""
    program, pids = running(supervised)
    os.kill(pids[role], signal.SIGKILL)
    fresh = wait_until(lambda: (found := program.pid(role)) not in (None, pids[role]) and found)
    assert is_alive(fresh)
    assert [program.pid(other) for other in ROLES if other != role] == [
        pids[other] for other in ROLES if other != role
    ]
    ready = program.data_dir / f"{role}.ready"
    identity = wait_until(lambda: (program.data_dir / "deaths").read_text().split())[2]
    wait_until(lambda: ready.read_text() not in ("", identity))  # a fresh identity
    deaths = (program.data_dir / "deaths").read_text().splitlines()
    assert deaths == [f"{role} {pids[role]} {identity} -9"]
    program.process.send_signal(signal.SIGTERM)
    code, out, _ = program.wait_ended()
    assert code == 0
    assert f"{role} was ended by SIGKILL; starting it again in 0.2 s" in out


def test_grandchildren_end_with_their_parent(supervised):
    """What a role started is ended before the role is started again, even if it holds the output pipe."""
    program, pids = running(supervised, engine="family")
    grandchild = int((program.data_dir / "grandchild").read_text())
    os.kill(pids["engine"], signal.SIGKILL)
    wait_until(lambda: not is_alive(grandchild))
    wait_until(lambda: program.pid("engine") not in (None, pids["engine"]))
    program.process.send_signal(signal.SIGINT)
    assert program.wait_ended()[0] == 0
    assert not is_alive(int((program.data_dir / "grandchild").read_text()))


@pytest.mark.parametrize("how", ["prctl", "no-prctl"])
def test_killed_supervisor_leaves_nobody(supervised, how):
    """SIGKILL of the supervisor itself ends every role: by the kernel on Linux, by the guardian elsewhere."""
    program, pids = running(supervised, program=how)
    program.process.kill()
    program.process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_alive, pids.values())))
    # the folder is free again, and the stale pid files are forgotten
    _, again = running(supervised)
    assert set(again.values()).isdisjoint(pids.values())


def test_guardian_is_let_go(supervised):
    """A clean end ends the guardian too."""
    program, _ = running(supervised, program="no-prctl")
    children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
    program.process.send_signal(signal.SIGINT)
    assert program.wait_ended()[0] == 0
    assert len(children) == 4
    assert not any(is_alive(int(pid)) for pid in children)


def test_configuration_error_ends_everything(supervised):
    """Exit code 3 of one role ends the program with that role's line and no second try."""
    program = supervised(engine="misconfigured")
    code, out, err = program.wait_ended()
    assert (code, err) == (1, "chatserver: MODEL=nowhere is no folder\n")
    assert "MODEL=nowhere" not in out  # it is told once
    events = program.events()
    assert events.count("start engine") == 1
    assert events.count("end store") == events.count("start store")  # it may not have come to start


def test_a_start_that_is_refused_ends_everything(supervised):
    """Exit code 4 before any life was ready: the line that says what to change, and no second try."""
    program = supervised(engine="refused")
    code, _, err = program.wait_ended()
    assert (code, err) == (1, "chatserver: the memory is too small\n")
    assert program.events().count("start engine") == 1


def test_a_start_that_is_refused_after_a_good_one_is_tried_again(supervised):
    """The machine has changed since, and may change back: the others live on meanwhile."""
    program, pids = running(supervised, engine="refused once")
    os.kill(pids["engine"], signal.SIGKILL)
    wait_until(lambda: program.events().count("start engine") == 3)
    wait_until(lambda: program.output().count("engine ready") == 2)
    assert program.pid("web") == pids["web"]
    assert "engine | chatserver: the memory is too small" in program.output()
    program.process.send_signal(signal.SIGINT)
    assert program.wait_ended()[0] == 0


def test_store_that_never_starts_is_given_up(supervised):
    """A store that fails three times before it was ever ready ends the program with its last words."""
    program = supervised(store="failing")
    code, _, err = program.wait_ended()
    assert (code, err) == (1, "chatserver: the disk is on fire\n")
    events = program.events()
    assert events.count("start store") == 3
    assert "start web" not in events


def test_failing_role_is_retried_ever_more_slowly(supervised):
    """A role that dies before it is ready is retried after 0.2, 0.4, 0.8 … seconds."""
    program = supervised(engine="failing")
    wait_until(lambda: (program.data_dir / "events").exists() and program.events().count("start engine") == 3)
    program.process.send_signal(signal.SIGINT)
    code, out, _ = program.wait_ended()
    assert code == 0
    assert out.count("engine | chatserver: the disk is on fire") >= 2
    assert re.findall(r"engine ended with exit code 1; starting it again in ([\d.]+) s", out)[:2] == [
        "0.2",
        "0.4",
    ]


def test_second_ctrl_c_ends_at_once(supervised):
    """A role that does not listen is waited for; a second SIGINT cuts the wait short."""
    program, pids = running(supervised, engine="deaf", program="drain:600")
    program.process.send_signal(signal.SIGINT)
    wait_until(lambda: "end web" in program.events())
    assert is_alive(pids["engine"])
    program.process.send_signal(signal.SIGINT)
    assert program.wait_ended()[0] == 0
    assert not any(map(is_alive, pids.values()))


def test_drain_has_an_end(supervised):
    """A role that is deaf to SIGTERM is killed after the drain."""
    program, pids = running(supervised, engine="deaf", program="drain:0.5")
    program.process.send_signal(signal.SIGTERM)
    assert program.wait_ended()[0] == 0
    assert not is_alive(pids["engine"])
    assert program.events()[-1] == "end store"


def test_interrupted_while_loading(supervised):
    """Nobody waits for a drain of an engine that has not even loaded, deaf or not."""
    program = supervised(program="drain:600", engine="never ready")
    wait_until(lambda: program.pid("engine"))
    program.process.send_signal(signal.SIGINT)
    assert program.wait_ended()[0] == 0


def test_connections_wait_while_web_restarts(supervised):
    """The socket outlives web: a connection made while nobody accepts is answered by the next life."""
    program, pids = running(supervised, web="answering")
    old = pids["web"]
    line = re.search(r"http://127\.0\.0\.1:(\d+)/", program.output())
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not is_alive(old))
    with socket.create_connection(("127.0.0.1", int(line[1])), timeout=60) as connection:
        connection.sendall(b"?")
        assert int(connection.recv(100)) == program.pid("web") != old


def test_one_supervisor_to_a_folder(supervised):
    """A second program on the same data folder says who has it, and leaves the first alone."""
    program, pids = running(supervised)
    second = supervised()
    code, _, err = second.wait_ended()
    assert code == 1
    assert (
        f"is in use by process {program.process.pid}; stop that one, or choose another with DATA_DIR=" in err
    )
    assert {role: program.pid(role) for role in ROLES} == pids


def test_logs_keep_what_the_roles_said(supervised):
    """Each role's output is in a log of its own, whatever the console shows."""
    program, _ = running(supervised)
    logs = program.data_dir / "logs"
    wait_until(lambda: all((logs / f"{role}.log").exists() for role in ROLES))
    wait_until((logs / "web.log").read_text)
    assert (logs / "web.log").read_text() == "WARNING: hello from web\n"
