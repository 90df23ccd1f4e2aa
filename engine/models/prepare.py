"""From a model's name to a folder that SGLang can serve.

    prepare("smollm2-135m-instruct", data_dir, report) -> data_dir/models/smollm2-135m-instruct
    prepare("/my/model", data_dir, report)             -> /my/model, after checking it

A known name has a recipe; its folder is made once, kept, and made anew when its manifest does not
fit. Anything else must be a Hugging Face folder, which is checked and never modified.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.contract import ModelUnusable
from engine.models import folder, smollm2, tiny_deepseek
from engine.models.kitchen import Recipe, Report, make

__all__ = ["DEFAULT_MODEL", "Report", "known_models", "prepare"]

DEFAULT_MODEL = smollm2.NAME

_RECIPES: dict[str, Callable[[], Recipe]] = {
    smollm2.NAME: smollm2.recipe,
    tiny_deepseek.NAME: tiny_deepseek.recipe,
}


def known_models() -> tuple[str, ...]:
    """Return the names that `prepare` can make from what is installed."""
    return tuple(_RECIPES)


def prepare(model: str, data_dir: Path, report: Report) -> Path:
    """Return a folder with everything SGLang needs to serve `model`.

    model: a name from `known_models`, or the path of a Hugging Face folder.
    data_dir: where made models are kept; created if missing.
    report: called with (done bytes, total bytes, text) as the work goes on; total 0 = unknown.
    Raises ModelUnusable with the file or setting that is wrong. Blocks: call it off the event loop.
    """
    try:
        return _prepare(model, data_dir.expanduser().resolve(), report)
    except OSError as error:
        raise ModelUnusable(
            f"model {model}: {error.strerror or error}: {error.filename or data_dir}"
        ) from error


def _prepare(model: str, data_dir: Path, report: Report) -> Path:
    recipe = _RECIPES.get(model)
    if recipe is not None:
        return make(recipe(), data_dir / "models", report)
    path = Path(model).expanduser()
    if not path.is_dir():
        names = ", ".join(known_models())
        raise ModelUnusable(
            f"model {model!r} is neither a folder nor a known name; known names: {names}, scripted"
        )
    folder.check(path)
    return path.resolve()
