"""`chatserver doctor`: what this machine lacks, one line a finding, and what to do about it.

All probes run at once, each in a thread of its own with a time-out, so that one that hangs costs the others
nothing. SGLang and torch are imported only by `--engine`, in a process of its own. Exit code 1 if one fails.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from chatserver.service.operation import doctor_probes as probes
from chatserver.settings import Settings
from engine import doctor as machine
from engine.contract import ModelUnusable
from engine.doctor import Finding, Level
from engine.profile import Profile, load

Probe = Callable[[], Finding]


def run(settings: Settings, *, start_engine: bool = False) -> int:
    """Look at everything, print a line for each, and return the exit code. Never raises."""
    failed = False
    for finding in _findings(settings, start_engine):
        failed |= finding.level is Level.FAIL
        print(line(finding), flush=True)
    return int(failed)


def line(finding: Finding) -> str:
    """Return a finding as it is printed: one line, whatever it holds."""
    text = f"{finding.level.value:<5} {finding.what:<11} {finding.detail}"
    return " ".join((f"{text} -> {finding.advice}" if finding.advice else text).splitlines())


def _findings(settings: Settings, start_engine: bool) -> Iterator[Finding]:
    profile, problem = _profile(settings)
    path = probes.model_path(settings)
    if problem:
        yield problem
    yield from _at_once(
        {
            "python": machine.python,
            "processor": machine.processor,
            "packages": machine.packages,
            "platform": machine.platform_plugin,
            "kernels": machine.kernels,
            "gpus": lambda: machine.gpus(profile),
            "model": lambda: machine.model(settings.model, path),
            "memory": lambda: machine.memory(settings.model, path, settings.context, profile),
            "data": lambda: probes.data_folder(settings),
            "store": lambda: probes.store(settings),
            "port": lambda: probes.port(settings),
            "cache": lambda: probes.cache(settings),
        },
        probes.PROBE_SECONDS,
    )
    yield from _at_once({"completion": lambda: probes.completion(settings)}, probes.COMPLETION_SECONDS + 1)
    if start_engine:
        yield probes.engine(settings, path)


def _at_once(probes: dict[str, Probe], seconds: float) -> Iterator[Finding]:
    """Yield what each probe finds, in their order. One that is not done after `seconds` is left behind."""
    deadline = time.monotonic() + seconds
    answers = {name: _start(name, probe) for name, probe in probes.items()}
    for name, answer in answers.items():
        try:
            yield answer.get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            yield Finding(
                Level.WARN, name, f"no answer within {seconds:g} s", "try again when the machine is less busy"
            )


def _start(name: str, probe: Probe) -> queue.Queue[Finding]:
    answer: queue.Queue[Finding] = queue.Queue(1)

    def work() -> None:
        try:
            answer.put(probe())
        except Exception as error:  # the doctor tells of everything, also of its own faults
            kind = type(error).__name__
            answer.put(
                Finding(Level.FAIL, name, f"could not be looked at: {kind}: {error}", "please report it")
            )

    # a daemon: a probe that hangs in the system must not keep the program from ending
    threading.Thread(target=work, name=f"doctor-{name}", daemon=True).start()
    return answer


def _profile(settings: Settings) -> tuple[Profile | None, Finding | None]:
    if settings.profile is None:
        return None, None
    try:
        return load(settings.profile), None
    except ModelUnusable as error:
        return None, Finding(Level.FAIL, "profile", str(error), "choose another with PROFILE=")
