"""DeepSeek-V3's architecture at any size: dimensions, what they must satisfy, and the configuration they make.

Fields are named as in `config.json`. What is not a field is as in DeepSeek-V3: sigmoid routing in groups with a
correction bias (`noaux_tc`), yarn with mscale 1, untied embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.contract import ModelUnusable

TOKENS = 49_152
"""Ids that the tokenizer of our recipes has: a smaller vocabulary could not be indexed by it."""
DTYPES = {"float32": 4, "bfloat16": 2}
"""Types that weights are written in, and the bytes of one number."""
_MOST = 2**24
"""No dimension is larger; DeepSeek-V3's largest is its window of 163,840."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The size of one model; the defaults are tiny-deepseek-v3's. Lengths in tokens, the rest in numbers.

    `rope_factor`: the window divided by the one that yarn stretches. `seed`: of all weights.
    Raises ModelUnusable, in one line that begins with the field's name, for what cannot be built or served.
    """

    vocab_size: int = TOKENS
    hidden_size: int = 128
    intermediate_size: int = 256
    moe_intermediate_size: int = 64
    num_hidden_layers: int = 4
    first_k_dense_replace: int = 1
    num_nextn_predict_layers: int = 1
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    n_routed_experts: int = 16
    n_shared_experts: int = 1
    num_experts_per_tok: int = 4
    n_group: int = 4
    topk_group: int = 2
    max_position_embeddings: int = 8192
    rope_factor: int = 2
    torch_dtype: str = "float32"
    seed: int = 20_240_117

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ModelUnusable(problem)

    @property
    def layers(self) -> range:
        """Return the numbers of all layers, the draft (MTP) layer last."""
        return range(self.num_hidden_layers + self.num_nextn_predict_layers)

    def is_dense(self, layer: int) -> bool:
        """Say whether a layer has one MLP in place of experts."""
        return layer < self.first_k_dense_replace

    def is_draft(self, layer: int) -> bool:
        """Say whether a layer is the draft (MTP) layer."""
        return layer >= self.num_hidden_layers

    def config(self) -> dict[str, Any]:
        """Return `config.json`, in the form of DeepSeek-V3's own."""
        sizes = {key: value for key, value in asdict(self).items() if key not in ("rope_factor", "seed")}
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            **sizes,
            "num_key_value_heads": self.num_attention_heads,
            "routed_scaling_factor": 2.5,
            "norm_topk_prob": True,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "moe_layer_freq": 1,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000,
            "rope_scaling": {
                "type": "yarn",
                "factor": self.rope_factor,
                "original_max_position_embeddings": self.max_position_embeddings // self.rope_factor,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": False,
            "initializer_range": 0.1,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "use_cache": True,
        }

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong, each in one line; later checks assume that earlier ones passed."""
        for field in fields(self):
            yield from self._out_of_range(field.name)
        if self.torch_dtype not in DTYPES:
            yield f"torch_dtype: expected one of {', '.join(DTYPES)}, got {self.torch_dtype!r}"
        if self.vocab_size < TOKENS:
            yield f"vocab_size: expected at least {TOKENS}, the tokenizer's ids, got {self.vocab_size}"
        if self.first_k_dense_replace >= self.num_hidden_layers:
            yield (
                f"first_k_dense_replace: expected less than num_hidden_layers ({self.num_hidden_layers}): "
                f"a layer with experts must be left, got {self.first_k_dense_replace}"
            )
        if self.num_nextn_predict_layers > 1:
            yield (
                "num_nextn_predict_layers: expected 0 or 1, the most that SGLang loads, "
                f"got {self.num_nextn_predict_layers}"
            )
        if self.qk_rope_head_dim % 2:
            yield f"qk_rope_head_dim: expected an even number, pairs are rotated, got {self.qk_rope_head_dim}"
        yield from self._routing_problems()
        if self.max_position_embeddings % self.rope_factor:
            yield (
                f"rope_factor: expected a divisor of max_position_embeddings ({self.max_position_embeddings}), "
                f"got {self.rope_factor}"
            )

    def _out_of_range(self, name: str) -> Iterator[str]:
        value = getattr(self, name)
        if name == "torch_dtype":
            return
        least = 0 if name in ("first_k_dense_replace", "num_nextn_predict_layers", "seed") else 1
        most = 2**31 if name == "seed" else _MOST
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            yield f"{name}: expected a whole number from {least} to {most}, got {value!r}"

    def _routing_problems(self) -> Iterator[str]:
        if self.n_routed_experts % self.n_group:
            yield f"n_group: {self.n_routed_experts} experts cannot be divided among {self.n_group} groups"
        each = self.n_routed_experts // self.n_group
        if each < 2:
            yield (
                f"n_group: expected at least 2 experts a group, whose two best rank it, got {each}; "
                "lower n_group or raise n_routed_experts"
            )
        if self.topk_group > self.n_group:
            yield f"topk_group: expected at most n_group ({self.n_group}), got {self.topk_group}"
        if self.num_experts_per_tok > self.topk_group * each:
            yield (
                f"num_experts_per_tok: expected at most {self.topk_group * each}, the experts of {self.topk_group} "
                f"groups, got {self.num_experts_per_tok}"
            )
