"""`chatserver plan`, as typed."""

import json

import pytest

from chatserver import __main__ as cli


def planned(capsys, *arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    code = cli.main(["plan", *arguments])
    return code, capsys.readouterr().out


def test_deepseek_v3_on_eight_h200(capsys):
    """The profile for this machine is found, the figures follow from it, and every rate has its source."""
    code, text = planned(capsys, "--gpus", "8xH200", "--context", "128k")
    assert code == 0
    assert "deepseek-v3 on 8 x H200, window of 131,072 tokens: fits" in text
    assert "profile h200x8" in text
    assert "71,424 bytes a token" in text
    assert "73,700 input and 14,800 output tokens/s (a larger unit: an upper bound here)" in text
    assert text.count("2025-") >= 2
    assert "PROFILE=h200x8" in text


def test_too_small(capsys):
    """Exit code 1, why, and what would."""
    code, text = planned(capsys, "--gpus", "8xh100", "--context", "128k")
    assert code == 1
    assert "DOES NOT FIT" in text
    assert "the weights need 31.2 GiB more on each GPU" in text
    assert "--gpus 16xH100 " in text
    assert "--gpus 8xH200 " in text
    assert "make serve" not in text


def test_window_that_does_not_fit(capsys):
    """The weights fit, one window does not: the largest that does is offered."""
    code, text = planned(capsys, "--gpus", "16xH800", "--redundant-experts", "16", "--context", "128k")
    assert code == 1
    assert "the cache holds 77,530 tokens, one window has 131,072" in text
    assert "--context 76800" in text


def test_json(capsys):
    """The same for programs, in bytes; the memory adds up."""
    code, text = planned(capsys, "--gpus", "8xH200", "--json")
    answer = json.loads(text)
    memory = answer["memory"]
    assert code == 0
    assert answer["fits"] is True
    assert answer["settings"]["attn_dp_size"] == 8
    assert memory["weights_total"] == sum(memory["weights"].values())
    parts = memory["runtime"] + memory["weights_total"] + memory["kv_cache"] + memory["kept_free"]
    assert parts == answer["gpus"]["memory"]
    assert answer["published_rates"]
    assert all(rate["source"] for rate in answer["published_rates"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "smollm2-135m-instruct", "--gpus", "1xL4"], "MODEL=smollm2-135m-instruct PROFILE=gpu1"),
        (["--model", "tiny-deepseek-v3", "--gpus", "2xL4"], "attn_dp_size 2"),
        (["--model", "smollm2-135m-instruct", "--gpus", "cpu"], "profile cpu"),
        (["--gpus", "8xH200", "--no-draft"], "70,272 bytes a token"),
        (["--gpus", "8xH200", "--attention-dp", "1"], "each of the 8 GPUs holds the same latent cache"),
        (
            ["--gpus", "8xH200", "--redundant-experts", "32", "--context", "64k"],
            "36 of 256 on each GPU, 32 of all are spare copies",
        ),
        (["--gpus", "8xH200", "--kv-dtype", "fp8_e4m3"], "35,712 bytes a token"),
        (
            ["--gpus", "8xH200", "--kv-dtype", "fp8_e4m3"],
            'kv_cache_dtype = "fp8_e4m3" in a copy of profile h200x8',
        ),
        (["--gpus", "8xH200", "--ep", "8"], "MODEL=FOLDER PROFILE=h200x8"),
        (["--gpus", "8xH200", "--ep", "4"], "64 of 256 on each GPU, each divided among 2 GPUs;"),
        (["--gpus", "2x8xH800", "--context", "64k"], "MODEL=FOLDER CONTEXT=65536 PROFILE=h800x16"),
        (["--gpus", "2x8xH800", "--context", "64k"], "--context-length 65536 --nnodes 2"),
        (["--profile", "h800x16"], "--node-rank $NODE_RANK --dist-init-addr $DIST_INIT_ADDR"),
        (["--profile", "pd-prefill-ep32"], "sglang_router.launch_router --pd-disaggregation"),
        (["--profile", "pd-decode-ep144"], "2 of 256 on each GPU, 32 of all are spare copies"),
    ],
)
def test_plans(capsys, arguments, expected):
    """Small models, a CPU, spreads of one's own, and every profile."""
    code, text = planned(capsys, *arguments)
    assert code == 0
    assert expected in text


def test_model_folder(capsys, tmp_path):
    """Any folder of a family that is known."""
    read = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    read |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    read |= {"vocab_size": 100, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(read))
    code, text = planned(capsys, "--model", str(tmp_path), "--gpus", "1xT4")
    assert code == 0
    assert "window of 4,096 tokens" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "8xH900"], "--gpus: expected 1 to 9999 of H200"),
        (["--gpus", "2x0xH200"], "--gpus: expected 1 to 9999 of"),
        (["--gpus", "0xH200"], "--gpus: expected 1 to 9999 of"),
        ([], "--gpus: expected GPUs such as 8xH200, or cpu"),
        (["--gpus", "6xH200"], "ep_num_redundant_experts = 2 would"),
        (["--gpus", "8xH200", "--ep", "3"], "tp_size: 8 cannot be divided among 3 expert ranks"),
        (["--gpus", "8xH200", "--ep", "0"], "ep_size: expected a whole number of at least 1, got 0"),
        (["--gpus", "8xH200", "--attention-dp", "3"], "--attention-dp: 8 GPUs cannot make 3 groups"),
        (
            ["--gpus", "8xH200", "--context", "1m"],
            "context_length: 1048576 tokens were asked for, the model has 163840",
        ),
        (
            ["--gpus", "8xH200", "--context", "long"],
            "--context: expected tokens such as 8192 or 128k, got 'long'",
        ),
        (["--gpus", "8xH200", "--kv-dtype", "int2"], "kv_cache_dtype: expected one of auto"),
        (["--gpus", "8xH200", "--profile", "h800x16"], "profile h800x16 is for 16 GPUs, got 8xH200"),
        (["--profile", "h200x8", "--ep", "8"], "--ep: the profile decides"),
        (["--profile", "nope"], "profile: expected one of cpu, cpu-tp2-ep2, gpu1"),
        (["--model", "gpt-9", "--gpus", "8xH200"], "--model: expected one of deepseek-v3"),
        (["--model", "smollm2-135m-instruct", "--gpus", "1xL4", "--ep", "1"], "ep: the model has no experts"),
        (["--gpus", "8xB200", "--check"], "--check: there is no profile to check"),
    ],
)
def test_mistake_is_one_line(capsys, arguments, message):
    """Which option, what was expected; exit code 2."""
    assert cli.main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
