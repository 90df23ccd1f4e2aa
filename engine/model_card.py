"""What a started SGLang engine serves, as the contract tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.contract import ModelCard
from engine.models import folder
from engine.settings import EngineSettings
from engine.tokenizer import HubTokenizer

if TYPE_CHECKING:
    from engine.runtime import Runtime


def read_card(
    settings: EngineSettings,
    config: dict[str, Any],
    context: int,
    runtime: Runtime,
    tokenizer: HubTokenizer,
) -> ModelCard:
    """Return the card. `config`: of the model folder; `context`: the window in tokens."""
    info = runtime.scheduler_info
    chosen = (
        folder.read_json(path) if (path := settings.model_path / "generation_config.json").is_file() else {}
    )
    page = runtime.server_args.page_size or 1
    return ModelCard(
        name=settings.name,
        aliases=settings.aliases,
        context=context,
        kv_tokens=info["max_total_num_tokens"],
        page=int(page),
        vocab_size=int(config["vocab_size"]),
        end_ids=tokenizer.end_ids,
        template_hash=tokenizer.template_hash,
        temperature=float(chosen.get("temperature") or 1.0),
        top_p=float(chosen.get("top_p") or 1.0),
        top_k=int(chosen.get("top_k") or -1),
        thinking_switch=tokenizer.thinking_switch,
    )
