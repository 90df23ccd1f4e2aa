"""Llama layers with random weights: as `engine.cpu.llama` takes them from SGLang, and written out in float64."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from engine.cpu import native
from engine.cpu.decode_attention import NativeDecoder
from engine.cpu.llama import _Layers
from engine.cpu.packing import BLOCK

EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes; `slots`: tokens of the pool, and of the table of positions."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    width: int
    slots: int


class Steps:
    """The layers, a pool, and one step at a time through the native kernel. Makes no sense without kernels."""

    def __init__(self, shape: Shape, table: torch.Tensor) -> None:
        """table: slots of each request, int32."""
        team = native.team()
        assert team is not None
        self.model = make(shape)
        self.pool = Pool(shape)
        self._layers = _Layers(self.model, team)
        self._layers._words = self._layers._describe(self.pool)
        self._decoder = NativeDecoder(table, team, shape.heads // shape.kv_heads)
        self._table = table

    def run(self, stream: torch.Tensor, requests: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the stream [tokens, hidden] behind all layers; token i is at positions[i] of request requests[i]."""
        out, places = stream.clone(), self._table[requests, positions].long()
        for begin in range(0, len(out), self._layers.slice):
            rows = slice(begin, begin + self._layers.slice)
            self._decoder.plan(requests[rows], positions[rows] + 1)
            self._layers._run(self._decoder, out[rows], positions[rows], places[rows])
        return out


class Pool:
    """Random keys and values, as SGLang's pool hands them out."""

    def __init__(self, shape: Shape) -> None:
        size = (shape.slots, shape.kv_heads, shape.width)
        self.keys, self.values = ([torch.randn(size) for _ in range(shape.layers)] for _ in range(2))

    def get_key_buffer(self, layer: int) -> torch.Tensor:
        """Return [slots, kv heads, width]."""
        return self.keys[layer]

    def get_value_buffer(self, layer: int) -> torch.Tensor:
        """Return [slots, kv heads, width]."""
        return self.values[layer]


def make(shape: Shape) -> Any:
    """Return a model."""
    angles = torch.arange(shape.slots)[:, None] / 100 ** (torch.arange(shape.width // 2) / shape.width)
    attention = SimpleNamespace(
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.width,
        scaling=shape.width**-0.5,
        rotary_emb=SimpleNamespace(cos_sin_cache=torch.cat((angles.cos(), angles.sin()), 1)),
    )
    linear = lambda rows, columns: SimpleNamespace(weight=_weight(rows, columns))  # noqa: E731
    rows = shape.heads * shape.width
    layers = [
        SimpleNamespace(
            self_attn=SimpleNamespace(
                **vars(attention),
                qkv_proj=linear(rows + 2 * shape.kv_heads * shape.width, shape.hidden),
                o_proj=linear(shape.hidden, rows),
            ),
            mlp=SimpleNamespace(
                gate_up_proj=linear(2 * shape.inner, shape.hidden),
                down_proj=linear(shape.hidden, shape.inner),
            ),
            input_layernorm=SimpleNamespace(weight=torch.rand(shape.hidden) + 0.5),
            post_attention_layernorm=SimpleNamespace(weight=torch.rand(shape.hidden) + 0.5),
        )
        for _ in range(shape.layers)
    ]
    config = SimpleNamespace(hidden_size=shape.hidden, rms_norm_eps=EPSILON)
    return SimpleNamespace(layers=layers, config=config, forward=None)


def by_hand(
    model: Any, pool: Pool, table: torch.Tensor, stream: torch.Tensor, requests: Any, positions: Any
) -> torch.Tensor:
    """Return what `Steps.run` should, in float64; the pool is not modified."""
    x, places = stream.double(), table[requests, positions].long()
    for index, layer in enumerate(model.layers):
        own = layer.self_attn
        heads, kv_heads, width = own.num_heads, own.num_kv_heads, own.head_dim
        qkv = _norm(x, layer.input_layernorm) @ own.qkv_proj.weight.double().T
        q, k, v = qkv.view(len(x), -1, width).split((heads, kv_heads, kv_heads), 1)
        rotation = own.rotary_emb.cos_sin_cache[positions].double()[:, None]
        keys, values = pool.keys[index].double(), pool.values[index].double()
        keys[places], values[places] = _rotated(k, rotation), v
        q = _rotated(q, rotation)
        mixed = []
        for row, (request, position) in enumerate(zip(requests.tolist(), positions.tolist(), strict=True)):
            seen = table[request, : position + 1].long()
            near, far = (part[seen].repeat_interleave(heads // kv_heads, 1) for part in (keys, values))
            weights = (torch.einsum("hd,jhd->hj", q[row], near) * own.scaling).softmax(-1)
            mixed.append(torch.einsum("hj,jhd->hd", weights, far).reshape(-1))
        x = x + torch.stack(mixed) @ own.o_proj.weight.double().T
        gate, up = (
            _norm(x, layer.post_attention_layernorm) @ layer.mlp.gate_up_proj.weight.double().T
        ).chunk(2, 1)
        x = x + (torch.nn.functional.silu(gate) * up) @ layer.mlp.down_proj.weight.double().T
    return x


def _weight(rows: int, columns: int) -> torch.Tensor:
    """Return weights in 4-bit blocks about zero, of a size that makes a product about as large as its input."""
    numbers = torch.randint(0, 16, (rows, columns // BLOCK, BLOCK)).float()
    numbers[..., 0], numbers[..., 1] = 0, 15
    scales = ((1 + torch.rand(rows, columns // BLOCK, 1)) / (7 * columns**0.5)).half().float()
    return ((numbers - 8) * scales).view(rows, columns)


def _norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * norm.weight.double()


def _rotated(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    (first, second), (cos, sin) = x.chunk(2, -1), rotation.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
