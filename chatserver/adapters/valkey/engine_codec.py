"""What engines tell of themselves, to bytes and back: reports, models, experts, caches."""

from __future__ import annotations

from typing import Any

from chatserver.adapters.valkey import packing
from chatserver.ports.caches import CacheReport
from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, ServedModel, Work


def encode_report(report: EngineReport) -> bytes:
    """Return an engine's report."""
    return packing.pack(report)


def decode_report(data: bytes) -> EngineReport:
    """Return an engine's report."""
    return packing.read(_report, packing.unpack(data)[0])


def encode_model(model: ServedModel) -> bytes:
    """Return a served model."""
    return packing.pack(model)


def decode_model(data: bytes) -> ServedModel:
    """Return a served model."""
    return packing.read(_model, packing.unpack(data)[0])


def encode_experts(load: ExpertLoad) -> bytes:
    """Return what an engine's experts did."""
    return packing.pack(load)


def decode_experts(data: bytes) -> ExpertLoad:
    """Return what an engine's experts did."""
    return packing.read(_experts, packing.unpack(data)[0])


def encode_cache_report(report: CacheReport) -> bytes:
    """Return what an engine's cache holds of a conversation."""
    return packing.pack(report)


def decode_cache_report(data: bytes) -> CacheReport:
    """Return what an engine's cache holds of a conversation."""
    return packing.read(lambda fields: CacheReport(**fields), packing.unpack(data)[0])


def _model(fields: dict[str, Any]) -> ServedModel:
    fields["aliases"] = tuple(fields["aliases"])
    return ServedModel(**fields)


def _report(fields: dict[str, Any]) -> EngineReport:
    fields["state"] = EngineState(fields["state"])
    fields["model"] = None if fields["model"] is None else _model(fields["model"])
    work = fields.get("work") or {}
    fields["work"] = Work(**{**work, "ttft": tuple(work["ttft"])}) if work else Work()
    return EngineReport(**fields)


def _experts(fields: dict[str, Any]) -> ExpertLoad:
    layers = tuple(LayerLoad(**{**layer, "ranks": tuple(layer["ranks"])}) for layer in fields["layers"])
    return ExpertLoad(layers, fields["rank_imbalance"])
