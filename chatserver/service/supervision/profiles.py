"""The chosen profile, applied: which settings it fills, how the engine runs, what is set in the environment."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chatserver.settings import Settings

if TYPE_CHECKING:
    from engine.profile import Profile
    from engine.settings import EngineSettings

MAX_RUNNING = 32
"""Answers that one engine works on at once where neither a setting nor a profile says."""


def max_running(settings: Settings) -> int:
    """Return how many answers one engine works on at once. Raises ModelUnusable for a wrong profile."""
    if settings.max_running is not None:
        return settings.max_running
    profile = _chosen(settings)
    return (profile.max_running if profile else None) or MAX_RUNNING


def apply(
    settings: Settings, engine: EngineSettings, environ: MutableMapping[str, str] = os.environ
) -> EngineSettings:
    """Return `engine` as the profile runs it; without one, unchanged. Reads the model's configuration.

    Modifies `environ`: sets the profile's variables that are not set. Raises ModelUnusable, in one line that
    names the key, if the profile cannot run this model.
    """
    profile = _chosen(settings)
    if profile is None:
        return engine
    from engine.architecture import FAMILIES, architecture  # noqa: PLC0415 - only with a profile
    from engine.models.folder import read_json  # noqa: PLC0415
    from engine.parallelism import ProfileRefused  # noqa: PLC0415
    from engine.plan import of_profile  # noqa: PLC0415

    config = read_json(engine.model_path / "config.json")
    family = config.get("model_type")
    if family in FAMILIES:
        of_profile(profile, architecture(config), settings.context)
    elif profile.family != "any":
        raise ProfileRefused(f"profile {profile.name} is for {profile.family} models, this one is {family}")
    applied = profile.engine_settings(engine, environ)
    for variable, value in profile.environment.items():
        environ.setdefault(variable, value)
    return replace(applied, max_running=engine.max_running)


def unused_gpu(settings: Settings, devices: Path = Path("/dev")) -> str | None:
    """Return what to set when a GPU is here and nothing was said about it, else None."""
    if settings.profile is not None or not any(devices.glob("nvidia[0-9]*")):
        return None
    return "there is a GPU, and the engine runs on the CPU; PROFILE=gpu1 uses it, PROFILE=cpu says that this is meant"


def spread(settings: Settings, engine: EngineSettings) -> EngineSettings:
    """Return `engine` on the profile's device and over its ranks, before the model is known.

    Raises ModelUnusable for a wrong profile. Modifies nothing.
    """
    profile = _chosen(settings)
    return profile.engine_settings(engine) if profile else engine


def _chosen(settings: Settings) -> Profile | None:
    if settings.profile is None:
        return None
    from engine.profile import load  # noqa: PLC0415 - as above

    return load(settings.profile)
