"""Lets `import torchvision` succeed when its native library cannot load.

SGLang imports torchvision for the configurations of vision models only. The registry's
torchvision for x86-64 Linux is a CUDA build; beside a CPU build of torch its library does not
load, and torchvision then fails at import, because `torchvision/_meta_registrations.py` gives
fake kernels to two operators that only the library declares. Declaring those two is enough.

It must run in every process before torchvision is imported; see `engine.child` and
`engine.platform.activate`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[Any] = []
"""The torch library that holds our declarations: they vanish with it."""


def install() -> bool:
    """Declare the missing operators if torchvision is there and its library cannot load.

    Returns whether they were declared (now or earlier). Idempotent; does nothing without torchvision.
    """
    if _declared:
        return True
    spec = importlib.util.find_spec("torchvision")
    if (
        spec is None
        or not spec.submodule_search_locations
        or _loads(Path(spec.submodule_search_locations[0]))
    ):
        return False
    import torch.library  # noqa: PLC0415 — seconds of import that a process without torchvision is spared

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return True


def _loads(folder: Path) -> bool:
    """Say whether torchvision's operator library loads; loading it twice is harmless."""
    import torch  # noqa: PLC0415 — as above

    libraries = sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)
