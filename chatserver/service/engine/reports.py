"""What an engine says of itself."""

from __future__ import annotations

from dataclasses import replace

from chatserver.ports.registry import EngineReport, ExpertLoad, LayerLoad, ServedModel, Work
from engine import experts
from engine.contract import Health, ModelCard


def of(report: EngineReport, card: ModelCard, health: Health, work: Work, *, running: int) -> EngineReport:
    """Return a report that says what is served, how the engine is, and its work. `running`: answers under way."""
    model = ServedModel(
        card.name,
        card.aliases,
        card.context,
        temperature=card.temperature,
        top_p=card.top_p,
        top_k=card.top_k,
        thinking_switch=card.thinking_switch,
    )
    return replace(
        report,
        model=model,
        running=running,
        queued=health.queued,
        kv_used=health.kv_used,
        kv_tokens=health.kv_tokens,
        kv_cached=health.kv_cached,
        kv_leaked=health.kv_leaked,
        work=work,
    )


def published(load: experts.ExpertLoad) -> ExpertLoad:
    """Return what the experts did, as it is published."""
    layers = tuple(
        LayerLoad(layer.layer, layer.ranks, layer.rank_imbalance, layer.expert_imbalance)
        for layer in load.layers
    )
    return ExpertLoad(layers, load.rank_imbalance)
