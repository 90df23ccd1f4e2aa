"""Profiles: named sets of SGLang's arguments, one TOML file each in `engine/profiles/`.

    description, family ("any", or a `model_type`), runs ("engine": embedded here; "sglang-server": SGLang's own)
    [needs]             gpus, nodes, gpu (a name of published/gpus.toml), host_memory_gib
    [sglang]            arguments by their names in SGLang's ServerArgs
    [environment]       variables to set before SGLang is imported
    [from_environment]  argument = the variable that gives it, for what differs from node to node
    [router]            notes, command

Anything else is refused in one line that names the key. Nothing here imports SGLang: names are compared with
the installed version's own list, read as text. `engine.profile_check` validates with SGLang itself.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.architecture import FAMILIES
from engine.parallelism import Parallelism, ProfileRefused, check_dispatch, parallelism
from engine.settings import EngineSettings

FOLDER = Path(__file__).parent / "profiles"
_SCHEMA: dict[str, type] = {
    "description": str,
    "family": str,
    "runs": str,
    "needs": dict,
    "sglang": dict,
    "environment": dict,
    "from_environment": dict,
    "router": dict,
}
_REQUIRED = ("description", "family", "runs", "needs", "sglang")
_NEEDS = ("gpus", "nodes", "gpu", "host_memory_gib")
_ROUTER = ("notes", "command")
_RUNS = ("engine", "sglang-server")
_GIVEN = ("model_path", "served_model_name")
"""Arguments that come from the settings, never from a profile."""
_WHOLE_NUMBERS = ("node_rank", "port", "nccl_port")


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to run SGLang. `gpus`: of the whole deployment, 0 = CPU. `per_node`: argument -> variable."""

    name: str
    description: str
    family: str
    runs: str
    arguments: Mapping[str, Any]
    gpus: int
    nodes: int = 1
    gpu: str | None = None
    host_memory_gib: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    per_node: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    router: str = ""
    source: str | None = None
    """The file, if it is not one of ours."""

    @property
    def parallelism(self) -> Parallelism:
        """Return the spread. Raises ProfileRefused."""
        return parallelism(self.arguments)

    @property
    def max_running(self) -> int | None:
        """Return how many requests run at once, if the profile says."""
        return self.arguments.get("max_running_requests")

    def engine_settings(
        self, settings: EngineSettings, environ: Mapping[str, str] = os.environ
    ) -> EngineSettings:
        """Return `settings` as this profile runs them: what `settings` has of its own (path, names, window) stays.

        Raises ProfileRefused if SGLang's own server has to run it, or a variable of this node is missing.
        """
        if self.runs != "engine":
            raise ProfileRefused(
                f"profile {self.name} is for SGLang's own server behind its router, which the embedded engine "
                f"is not; `chatserver plan --profile {self.name}` prints the commands"
            )
        extra = {**self.arguments, **self.node_arguments(environ)}
        context = settings.context if settings.context is not None else extra.get("context_length")
        extra.pop("context_length", None)
        return replace(
            settings,
            context=context,
            device=extra.pop("device", settings.device),
            dtype=extra.pop("dtype", settings.dtype),
            tp=extra.pop("tp_size", settings.tp),
            ep=extra.pop("ep_size", settings.ep),
            max_queued=extra.pop("max_queued_requests", settings.max_queued),
            prefill_chunk=extra.pop("chunked_prefill_size", settings.prefill_chunk),
            extra={k: v for k, v in extra.items() if k != "max_running_requests"} | dict(settings.extra),
        )

    def node_arguments(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments that differ from node to node. Raises ProfileRefused for a missing variable."""
        return {key: _from_variable(self.name, key, name, environ) for key, name in self.per_node.items()}

    def command(self, model: str) -> list[str]:
        """Return the command that runs SGLang's own server like this; per-node values as $VARIABLES."""
        words = ["python", "-m", "sglang.launch_server", "--model-path", model]
        for key, value in self.arguments.items():
            words += flag(key, value)
        for key, variable in self.per_node.items():
            words += [f"--{key.replace('_', '-')}", f"${variable}"]
        return words


def names() -> tuple[str, ...]:
    """Return the profiles that come with this program."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str) -> Profile:
    """Return a profile by its name, or from a TOML file by its path. Raises ProfileRefused."""
    path = Path(name).expanduser() if os.sep in name or name.endswith(".toml") else FOLDER / f"{name}.toml"
    if path.parent == FOLDER and name not in names():
        near = get_close_matches(name, names(), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ProfileRefused(
            f"profile: expected one of {', '.join(names())}, or a .toml file, got {name!r}{meant}"
        )
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ProfileRefused(f"profile: cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileRefused(f"profile: {path} is not valid TOML: {error}") from None
    try:
        return replace(parse(path.stem, content), source=None if path.parent == FOLDER else str(path))
    except ProfileRefused as error:
        raise ProfileRefused(f"{path.name}: {error}") from None


def parse(name: str, content: Mapping[str, Any]) -> Profile:
    """Return the profile that a TOML document describes. Raises ProfileRefused, naming the key."""
    _only(content, _SCHEMA, "")
    for key in _REQUIRED:
        if key not in content:
            raise ProfileRefused(f"{key}: missing")
    for key, value in content.items():
        if not isinstance(value, _SCHEMA[key]):
            raise ProfileRefused(f"{key}: expected {_kind(_SCHEMA[key])}, got {value!r}")
    _one_of("family", content["family"], ("any", *FAMILIES))
    _one_of("runs", content["runs"], _RUNS)
    needs, router = content["needs"], content.get("router", {})
    _only(needs, _NEEDS, "needs.")
    _only(router, _ROUTER, "router.")
    profile = Profile(
        name=name,
        description=content["description"],
        family=content["family"],
        runs=content["runs"],
        arguments=dict(content["sglang"]),
        gpus=_number(needs, "gpus"),
        nodes=_number(needs, "nodes", 1),
        gpu=needs.get("gpu"),
        host_memory_gib=_number(needs, "host_memory_gib") if "host_memory_gib" in needs else None,
        environment=_texts(content, "environment"),
        per_node=_texts(content, "from_environment"),
        notes=str(router.get("notes", "")).strip(),
        router=str(router.get("command", "")).strip(),
    )
    _check_arguments(profile)
    return profile


def flag(key: str, value: Any) -> list[str]:
    """Return a ServerArgs argument as words of a command line; a false flag has none."""
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else []
    if isinstance(value, list):
        return [name, *map(str, value)]
    return [name, str(value)]


@functools.cache
def server_argument_names() -> frozenset[str] | None:
    """Return the fields of the installed SGLang's ServerArgs, None if it cannot be found. Imports nothing of it."""
    found = importlib.util.find_spec("sglang")
    places = list(found.submodule_search_locations or ()) if found else []
    source = Path(places[0]) / "srt" / "arg_groups" / "field_order.py" if places else None
    if source is None or not source.is_file():
        return None
    for statement in ast.parse(source.read_text()).body:
        if (
            isinstance(statement, ast.Assign)
            and ast.unparse(statement.targets[0]) == "POSITIONAL_FIELD_ORDER"
        ):
            return frozenset(ast.literal_eval(statement.value))
    return None


def _check_arguments(profile: Profile) -> None:
    known = server_argument_names()
    for key in (*profile.arguments, *profile.per_node):
        if key in _GIVEN:
            raise ProfileRefused(f"sglang.{key}: comes from the settings, not from a profile")
        if known is not None and key not in known:
            near = get_close_matches(key, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ProfileRefused(f"sglang.{key}: the installed SGLang has no such argument{meant}")
    spread = profile.parallelism
    if profile.gpus and spread.tp != profile.gpus:
        raise ProfileRefused(f"needs.gpus: expected {spread.tp}, the tp_size, got {profile.gpus}")
    if spread.nodes != profile.nodes:
        raise ProfileRefused(f"needs.nodes: expected {spread.nodes}, the nnodes, got {profile.nodes}")
    check_dispatch(spread, profile.arguments, profile.environment)


def _from_variable(profile: str, key: str, variable: str, environ: Mapping[str, str]) -> Any:
    text = environ.get(variable, "").strip()
    if not text:
        raise ProfileRefused(f"profile {profile} needs the variable {variable} on every node: its {key}")
    if key not in _WHOLE_NUMBERS:
        return text
    if not text.isdigit():
        raise ProfileRefused(f"{variable}: expected a whole number, got {text!r}")
    return int(text)


def _texts(content: Mapping[str, Any], table: str) -> dict[str, str]:
    for key, value in content.get(table, {}).items():
        if not isinstance(value, str):
            raise ProfileRefused(f"{table}.{key}: expected a text, got {value!r}")
    return dict(content.get(table, {}))


def _number(needs: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = needs.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProfileRefused(f"needs.{key}: expected a whole number, got {value!r}")
    return value


def _only(content: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
    for key in content:
        if key not in known:
            near = get_close_matches(key, list(known), n=1) or sorted(known)
            raise ProfileRefused(f"{prefix}{key}: unknown key; did you mean {' or '.join(near)}?")


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ProfileRefused(f"{key}: expected one of {', '.join(known)}, got {value!r}")


def _kind(kind: type) -> str:
    return {str: "a text", dict: "a table"}[kind]
