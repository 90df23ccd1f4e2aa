"""The chosen profile on its way into the engine's settings."""

import json
from pathlib import Path

import pytest

from chatserver.service.supervision import profiles
from chatserver.settings import read
from engine.parallelism import ProfileRefused
from engine.published.tables import config
from engine.settings import EngineSettings


@pytest.fixture
def deepseek(tmp_path) -> EngineSettings:
    """Engine settings for a folder with DeepSeek-V3's configuration."""
    (tmp_path / "config.json").write_text(json.dumps(config("deepseek-v3")))
    return EngineSettings(tmp_path, "deepseek-v3", max_running=64)


def test_without_one_nothing_changes(deepseek):
    """The CPU, 32 answers at once, and an untouched environment."""
    environ: dict[str, str] = {}
    assert profiles.apply(read({}), deepseek, environ) is deepseek
    assert environ == {}
    assert profiles.max_running(read({})) == profiles.MAX_RUNNING


def test_applied(deepseek):
    """The profile's arguments and variables; what is set already stays."""
    environ = {"SGLANG_PLUGINS": "mine"}
    settings = read({"CHATSERVER_PROFILE": "h200x8"})
    applied = profiles.apply(settings, deepseek, environ)
    assert (applied.device, applied.tp, applied.max_running) == ("cuda", 8, 64)
    assert environ == {"SGLANG_PLUGINS": "mine", "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK": "256"}


def test_a_gpu_that_nobody_spoke_of(tmp_path):
    """A GPU is not left idle silently; a profile, also `cpu`, says that the choice is meant."""
    assert profiles.unused_gpu(read({}), tmp_path) is None
    (tmp_path / "nvidia0").touch()
    assert "PROFILE=gpu1" in str(profiles.unused_gpu(read({}), tmp_path))
    assert profiles.unused_gpu(read({}, profile="cpu"), tmp_path) is None


def test_answers_at_once():
    """A setting wins over the profile."""
    assert profiles.max_running(read({}, profile="h200x8")) == 1024
    assert profiles.max_running(read({}, profile="h200x8", max_running="100")) == 100


def test_window_over_the_models(deepseek):
    """Refused before the model is loaded."""
    with pytest.raises(ProfileRefused, match="context_length: 200000 tokens"):
        profiles.apply(read({}, profile="h200x8", context="200000"), deepseek, {})


def test_profile_of_another_family(tmp_path):
    """Also for families whose arithmetic is not known."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    with pytest.raises(ProfileRefused, match="is for deepseek_v3 models, this one is gpt_oss"):
        profiles.apply(read({}, profile="h200x8"), EngineSettings(tmp_path, "m"), {})
    assert profiles.apply(read({}, profile="gpu1"), EngineSettings(tmp_path, "m"), {}).device == "cuda"


def test_every_profile_file_is_named_in_its_own_words():
    """Descriptions are one line and fit a listing."""
    from engine.profile import load, names

    assert names()
    for name in names():
        assert 0 < len(load(name).description) <= 120
        assert Path(name).name == name
