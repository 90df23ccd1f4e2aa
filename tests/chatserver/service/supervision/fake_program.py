"""A whole program of fake roles under the real supervisor: `fake_program.py DATA_DIR NAME=BEHAVIOUR…`.

`program=no-prctl` takes away the kernel's help, as on other platforms; `program=drain:1` sets the drain.
"""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import uvloop

from chatserver.errors import StartupError
from chatserver.service.supervision import child, listening, supervisor
from chatserver.service.supervision.child import Death, Launch, Progress, Role
from chatserver.service.supervision.console import Console
from chatserver.service.supervision.run_folder import RunFolder
from chatserver.settings import Settings

ROLE = Path(__file__).with_name("fake_role.py")
data_dir = Path(sys.argv[1])
behaviours = dict(argument.split("=") for argument in sys.argv[2:])


def role(name: str, listener_fd: int | None = None, tries: int | None = None) -> Role:
    def launch() -> Launch:
        identity = secrets.token_hex(8)
        environ = {**os.environ, "FAKE_IDENTITY": identity, "CHATSERVER_LISTEN_FD": str(listener_fd)}
        command = (sys.executable, str(ROLE), name, str(data_dir), behaviours.get(name, "steady"))
        return Launch(command, environ, identity, () if listener_fd is None else (listener_fd,))

    async def probe(identity: str) -> Progress:
        ready = data_dir / f"{name}.ready"
        return Progress(ready.exists() and ready.read_text() == identity, f"{name} at work")

    async def on_death(death: Death) -> None:
        with (data_dir / "deaths").open("a") as deaths:
            deaths.write(f"{death.role} {death.pid} {death.identity} {death.code}\n")

    return Role(name, launch, probe, on_death, tries=tries)


async def main() -> None:
    how = behaviours.get("program", "")
    if how == "no-prctl":
        child.follow_parent = supervisor.follow_parent = lambda number: None
    listener = listening.listen(Settings(port=0))
    with RunFolder(data_dir) as folder:
        await supervisor.Supervisor(
            store=role("store", tries=3),
            engine=role("engine"),
            web=role("web", listener.fileno()),
            folder=folder,
            console=Console(sys.stdout),
            address=listening.url(listener),
            drain=float(how.partition("drain:")[2] or 10),
        ).run()


try:
    asyncio.run(main()) if behaviours.get("loop") == "asyncio" else uvloop.run(main())
except StartupError as error:
    print(f"chatserver: {error.message}", file=sys.stderr)
    sys.exit(error.exit_code)
