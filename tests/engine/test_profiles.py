"""Profiles against SGLang's own ServerArgs and DeepSeek-V3's real configuration; mistakes in one line."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.architecture import architecture
from engine.parallelism import ProfileRefused, check
from engine.plan import GIB, of_profile, plan
from engine.profile import FOLDER, Profile, flag, load, names, parse, server_argument_names
from engine.profile_check import check_in_subprocess
from engine.published.tables import GPUS, config
from engine.settings import EngineSettings, server_args

DEEPSEEK = architecture(config("deepseek-v3"))
LARGE = [name for name in names() if load(name).family == "deepseek_v3" and load(name).gpus]
LEAST = """
description = "a test"
family = "any"
runs = "engine"
[needs]
gpus = 1
[sglang]
"""


def written(tmp_path: Path, text: str) -> str:
    """Write a profile of one's own; return its path."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


REFUSED = {
    "attention_backend": ('"fa33"', "invalid choice"),
    "max_running_requests": ('"many"', "invalid int value"),
    "moe_dense_tp_size": ("4", "moe_dense_tp_size only supports"),
    "enable_prefill_cp": ("true", "--cp-strategy must be set"),
    "chunked_prefill_size": ("65536.0", "invalid int value"),
}
"""Key -> a value that it cannot have in h200x8, and SGLang's reason."""


def broken(key: str, value: str) -> str:
    """Return the text of h200x8 with one other value."""
    lines = (FOLDER / "h200x8.toml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(f"{key} =")]
    lines.insert(lines.index("[sglang]") + 1, f"{key} = {value}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, dict]:
    """Have SGLang check all profiles, and the broken ones by their key, in one process: name -> answer."""
    folder = tmp_path_factory.mktemp("profiles")
    for key, (value, _) in REFUSED.items():
        (folder / f"{key}.toml").write_text(broken(key, value))
    profiles = [*LARGE, "gpu1", *(str(folder / f"{key}.toml") for key in REFUSED)]
    command = [sys.executable, "-m", "engine.profile_check", "deepseek-v3", *profiles]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    answers = map(json.loads, done.stdout.splitlines())
    return {Path(answer["profile"]).stem: answer for answer in answers}


def test_the_profiles_that_are_promised():
    """One for each way to run that the documents name."""
    assert set(names()) == {
        "cpu",
        "cpu-tp2-ep2",
        "gpu1",
        "h200x8",
        "h800x16",
        "pd-prefill-ep32",
        "pd-decode-ep144",
    }


@pytest.mark.sglang
@pytest.mark.parametrize("name", [*LARGE, "gpu1"])
def test_sglang_accepts(answers, name):
    """Its parser reads every value as it is written, and its launch checks pass with the model's configuration."""
    assert "error" not in answers[name]
    got, wanted = answers[name]["resolved"], load(name).arguments
    divided = {"chunked_prefill_size"} if wanted.get("attn_dp_size", 1) > 1 else set()
    if wanted.get("disaggregation_mode") != "decode":
        for key in divided:
            assert got[key] == wanted[key] // wanted["attn_dp_size"]
    assert {key: got[key] for key in wanted if key not in divided} == {
        key: value for key, value in wanted.items() if key not in divided
    }


@pytest.mark.sglang
def test_pages_of_one_token(answers):
    """No profile for DeepSeek-V3 makes a turn prefill the rest of a page again."""
    assert {answers[name]["resolved"]["page_size"] for name in LARGE} == {1}


@pytest.mark.sglang
@pytest.mark.parametrize("key", REFUSED)
def test_sglang_refuses(answers, key):
    """What only SGLang knows (types, choices, combinations) is refused with its own reason, in one line."""
    error = answers[key]["error"]
    assert REFUSED[key][1] in error
    assert "\n" not in error


@pytest.mark.sglang
def test_check_in_a_process_of_its_own():
    """As `chatserver plan --check` does; the CPU's profile is resolved on the portable platform."""
    assert check_in_subprocess(load("cpu"), "smollm2-135m-instruct")["device"] == "cpu"


@pytest.mark.parametrize("name", LARGE)
def test_profile_runs_deepseek_v3_on_its_gpus(name):
    """Heads and experts divide, and a whole window fits beside the weights, on the GPU and in host memory."""
    profile = load(name)
    check(DEEPSEEK, profile.parallelism, profile.arguments)
    result = plan(DEEPSEEK, GPUS[profile.gpu or ""], of_profile(profile, DEEPSEEK))
    assert result.fits
    assert result.ask.context == 131_072
    assert result.host_bytes <= (profile.host_memory_gib or 0) * GIB


@pytest.mark.parametrize(
    ("name", "experts", "ranks"), [("pd-prefill-ep32", 9, 32), ("pd-decode-ep144", 2, 144), ("h200x8", 32, 8)]
)
def test_experts_on_each_gpu(name, experts, ranks):
    """As in DeepSeek's own units: 9 routed experts on a GPU in prefill, 2 in decode."""
    spread = load(name).parallelism
    assert (spread.ep, spread.experts_held(DEEPSEEK.experts)) == (ranks, experts)


def test_argument_names_are_sglangs_own():
    """The list is read from the installed package as text; it is what a profile's keys are compared with."""
    known = server_argument_names()
    assert known is not None
    assert {"tp_size", "moe_a2a_backend", "attn_dp_size"} <= known
    assert len(known) > 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LEAST + "tp_sizes = 1",
            "sglang.tp_sizes: the installed SGLang has no such argument; did you mean tp_size",
        ),
        (LEAST + 'model_path = "x"', "sglang.model_path: comes from the settings"),
        (LEAST + "tp_size = 2", "needs.gpus: expected 2, the tp_size, got 1"),
        (LEAST + "tp_size = 1\nnnodes = 2", "tp_size: 1 cannot be divided among 2 nodes"),
        (LEAST + "dp_size = 2", "dp_size: one engine serves one replica"),
        (LEAST + "tp_size = true", "tp_size: expected a whole number of at least 1, got True"),
        (LEAST + 'moe_a2a_backend = "deepep"', "cuda_graph_max_bs_decode: must be set"),
        (
            LEAST + 'moe_a2a_backend = "deepep"\ncuda_graph_max_bs_decode = 129',
            "129 requests make 129 tokens a step",
        ),
        (LEAST + "ep_size = 2", "tp_size: 1 cannot be divided among 2 expert ranks"),
        (LEAST.replace("gpus", "gpu_count"), "needs.gpu_count: unknown key; did you mean gpu"),
        (LEAST.replace('"any"', '"gpt"'), "family: expected one of any, llama"),
        (LEAST.replace('"engine"', '"vllm"'), "runs: expected one of engine, sglang-server, got 'vllm'"),
        (LEAST.replace('"a test"', "1"), "description: expected a text, got 1"),
        (LEAST + "[environments]", "environments: unknown key; did you mean environment"),
        (LEAST + "[environment]\nA = 1", "environment.A: expected a text, got 1"),
        (LEAST.replace("gpus = 1", "gpus = -1"), "needs.gpus: expected a whole number, got -1"),
        ("family = 'any'", "description: missing"),
        ("]", "is not valid TOML"),
    ],
)
def test_mistake_names_its_key(tmp_path, text, message):
    """One line: which file, which key, what was expected."""
    with pytest.raises(ProfileRefused) as error:
        load(written(tmp_path, text))
    assert message in str(error.value)
    assert "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tp_size": 6}, "tp_size: 128 attention heads cannot be divided among 6 ranks"),
        ({"tp_size": 12, "attn_dp_size": 12, "ep_size": 12}, "ep_num_redundant_experts = 8 would"),
        ({"tp_size": 32, "ep_size": 32}, "moe_dense_tp_size: dense layers of width 18432"),
        ({"tp_size": 32, "moe_dense_tp_size": 1}, "experts of width 2048 cannot be divided among 32 ranks"),
        ({"tp_size": 8, "context_length": 200_000}, "context_length: 200000 tokens were asked for"),
    ],
)
def test_impossible_for_deepseek_v3(arguments, message):
    """Spreads that SGLang would refuse after minutes of loading."""
    profile = Profile("p", "", "deepseek_v3", "engine", arguments, arguments["tp_size"])
    with pytest.raises(ProfileRefused, match=message):
        of_profile(profile, DEEPSEEK)


def test_speculation_needs_a_draft_layer():
    """A model without one is refused, unless a draft model is given."""
    small = architecture(config("smollm2-135m-instruct"))
    profile = Profile("p", "", "any", "engine", {"speculative_algorithm": "EAGLE"}, 1)
    with pytest.raises(ProfileRefused, match="speculative_algorithm: the model has no draft"):
        of_profile(profile, small)


def test_other_family_is_refused():
    """DeepSeek's profiles are for its architecture."""
    with pytest.raises(ProfileRefused, match="h200x8 is for deepseek_v3 models, this one is llama"):
        of_profile(load("h200x8"), architecture(config("smollm2-135m-instruct")))


def test_unknown_name_lists_the_known():
    """With the nearest one."""
    with pytest.raises(ProfileRefused, match=r"expected one of cpu, cpu-tp2-ep2, gpu1.*did you mean h200x8"):
        load("h200x9")
    with pytest.raises(ProfileRefused, match="cannot read"):
        load("./nowhere.toml")


def test_the_embedded_engine_runs_it():
    """A profile becomes EngineSettings; what comes from the settings stays."""
    settings = load("h200x8").engine_settings(EngineSettings(Path("m"), "deepseek-v3", max_running=7))
    arguments = server_args(settings, settings.context or 0)
    assert (settings.device, settings.tp, settings.ep, settings.context) == ("cuda", 8, 8, 131_072)
    assert arguments["max_running_requests"] == 7
    assert arguments["attn_dp_size"] == 8
    assert arguments["dtype"] == "auto"
    assert "max_total_tokens" not in arguments


def test_a_chosen_window_wins():
    """CHATSERVER_CONTEXT is the operator's."""
    settings = load("h200x8").engine_settings(EngineSettings(Path("m"), "m", context=4096))
    assert settings.context == 4096
    assert "context_length" not in settings.extra


def test_cpu_profile_is_what_runs_without_one():
    """Choosing it changes nothing."""
    plain = EngineSettings(Path("m"), "m")
    assert load("cpu").engine_settings(plain) == plain


def test_what_differs_from_node_to_node():
    """It comes from variables, and a missing or wrong one is named."""
    profile = load("h800x16")
    plain = EngineSettings(Path("m"), "m")
    given = {"NODE_RANK": "1", "DIST_INIT_ADDR": "10.0.0.1:5000"}
    extra = profile.engine_settings(plain, given).extra
    assert (extra["node_rank"], extra["dist_init_addr"]) == (1, "10.0.0.1:5000")
    with pytest.raises(ProfileRefused, match="needs the variable NODE_RANK on every node"):
        profile.engine_settings(plain, {})
    with pytest.raises(ProfileRefused, match="NODE_RANK: expected a whole number, got 'one'"):
        profile.engine_settings(plain, {**given, "NODE_RANK": "one"})


def test_separated_prefill_is_not_embedded():
    """The message says what to do instead."""
    with pytest.raises(ProfileRefused, match="chatserver plan --profile pd-decode-ep144"):
        load("pd-decode-ep144").engine_settings(EngineSettings(Path("m"), "m"))


def test_flags():
    """ServerArgs' names as SGLang's command line has them."""
    assert flag("enable_eplb", True) == ["--enable-eplb"]
    assert flag("enable_eplb", False) == []
    assert flag("cuda_graph_bs_decode", [1, 2]) == ["--cuda-graph-bs-decode", "1", "2"]


def test_profiles_travel_with_the_package():
    """They lie beside the module, as TOML that needs nothing else."""
    found = [parse(path.stem, tomllib.loads(path.read_text())).name for path in FOLDER.glob("*.toml")]
    assert sorted(found) == sorted(names()) != []
