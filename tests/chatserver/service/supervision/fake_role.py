"""One fake process for the supervisor's tests: `fake_role.py NAME FOLDER BEHAVIOUR`.

It notes its start and its end in FOLDER/events and, when it can be used, its identity in FOLDER/NAME.ready.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

name, folder, behaviour = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


def note(text: str) -> None:
    with (folder / "events").open("a") as events:
        events.write(f"{text} {name} {os.getpid()}\n")


def lives() -> list[str]:
    return [
        line for line in (folder / "events").read_text().splitlines() if line.startswith(f"start {name} ")
    ]


def end(*_: object) -> None:
    note("end")
    sys.exit(0)


signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is none of its business
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else end)
note("start")
if behaviour == "misconfigured":
    print("a warning before it", flush=True)
    print("chatserver: MODEL=nowhere is no folder", file=sys.stderr, flush=True)
    sys.exit(3)
if behaviour == "failing":
    print("chatserver: the disk is on fire", file=sys.stderr, flush=True)
    sys.exit(1)
if behaviour == "refused" or (behaviour == "refused once" and len(lives()) == 2):
    print("chatserver: the memory is too small", file=sys.stderr, flush=True)
    sys.exit(4)
if behaviour == "family":
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "grandchild").write_text(str(grandchild.pid))
print(f"WARNING: hello from {name}", flush=True)
if behaviour != "never ready":
    (folder / f"{name}.ready").write_text(os.environ["FAKE_IDENTITY"])
if behaviour == "answering":
    listener = socket.socket(fileno=int(os.environ["CHATSERVER_LISTEN_FD"]))
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(100)
            connection.sendall(str(os.getpid()).encode())
while True:
    time.sleep(60)
