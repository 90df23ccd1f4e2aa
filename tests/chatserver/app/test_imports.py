"""What each role imports: a start stays quick, and a process small, only as long as it leaves the rest alone."""

import subprocess
import sys

import pytest

MODEL_SIDE = {"torch", "sglang", "transformers", "numpy", "numba", "scipy", "openai"}
WEB_SIDE = {"starlette", "uvicorn", "websockets", "sse_starlette"}


def imported_by(role: str) -> set[str]:
    """Return the top-level packages that a role has imported when it begins to work."""
    program = f"import chatserver.__main__, chatserver.app.{role}, sys; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize(
    ("role", "foreign"),
    [
        ("store", MODEL_SIDE | WEB_SIDE | {"redis"}),
        ("web", MODEL_SIDE),
        ("serve", MODEL_SIDE | WEB_SIDE),
        ("engine", MODEL_SIDE | WEB_SIDE),
    ],
)
def test_a_role_imports_only_its_own(role, foreign):
    """No role imports what another needs; the engine imports SGLang only once it knows its model."""
    assert not imported_by(role) & foreign
