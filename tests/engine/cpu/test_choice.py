"""Which vectors are chosen on which processor, and what the log says of it."""

import pytest

from engine.cpu import native

target = pytest.importorskip("engine.cpu.target", reason="no numba on this machine")

AVX2 = "+sse4.2,+avx,+avx2,+fma,+f16c"
AVX512 = f"{AVX2},+avx512f,+avx512vl,+avx512bw,+avx512dq"
AMX = f"{AVX512},+avx512bf16,+amx-tile,+amx-bf16,+amx-int8"

PROCESSORS = {
    "AVX2": ("x86_64", AVX2, ["avx2", "plain"], "avx2 vectors, 8 floats each (x86_64: avx2 fma)"),
    "AVX-512": (
        "x86_64", AVX512, ["avx512", "avx2", "plain"],
        "avx512 vectors, 16 floats each (x86_64: avx2 fma avx512f avx512vl)",
    ),
    "AMX": (
        "AMD64", AMX, ["avx512", "avx2", "plain"],
        "avx512 vectors, 16 floats each (AMD64: avx2 fma avx512f avx512vl avx512bf16 amx-tile amx-bf16; "
        "AMX is left to torch, for bfloat16)",
    ),
    "AVX-512 without VL": ("x86_64", f"{AVX2},+avx512f", ["avx2", "plain"], "avx2 vectors, 8 floats each"),
    "AVX2 without FMA": ("x86_64", "+avx,+avx2", ["plain"], "plain vectors, 4 floats each (x86_64: avx2)"),
    "ARM": ("aarch64", "+neon,+fp-armv8", ["neon", "plain"], "neon vectors, 8 floats each (64-bit ARM: neon)"),
    "ARM of Apple": ("arm64", "", ["neon", "plain"], "neon vectors, 8 floats each (64-bit ARM)"),
    "none": ("riscv64", "", ["plain"], "plain vectors, 4 floats each (riscv64)"),
    "nothing named": ("x86_64", "", ["plain"], "plain vectors, 4 floats each (x86_64)"),
}  # fmt: skip


@pytest.fixture
def processor(monkeypatch, request):
    """Be the named processor: its machine name, and the features that LLVM finds."""
    machine, features, *expected = PROCESSORS[request.param]
    monkeypatch.delenv(target.VARIABLE, raising=False)
    monkeypatch.setattr(target.platform, "machine", lambda: machine)
    monkeypatch.setattr(target, "_features", lambda: features)
    monkeypatch.setattr(target, "_compile_for", lambda chosen, narrower: None)  # numba stays as it is
    target.target.cache_clear()
    yield expected
    target.target.cache_clear()


@pytest.mark.parametrize("processor", PROCESSORS, indirect=True)
def test_the_widest_vectors_of_the_processor_are_chosen(processor):
    """All that it can run are offered, the widest is taken, and the log names it with its grounds."""
    names, line = processor
    assert [one.name for one in target.targets_here()] == names
    assert target.target().name == names[0]
    assert target.describe().startswith(line)


@pytest.mark.parametrize("processor", ["AMX"], indirect=True)
def test_narrower_vectors_can_be_asked_for(processor, monkeypatch):
    """By name; wider ones than the processor has are refused, and the message says what there is."""
    monkeypatch.setenv(target.VARIABLE, "avx2")
    assert target.target() is target.AVX2
    target.target.cache_clear()
    monkeypatch.setenv(target.VARIABLE, "neon")
    with pytest.raises(ValueError, match="ENGINE_VECTORS: expected one of avx512, avx2, plain, got 'neon'"):
        target.target()


def test_the_log_line_names_the_choice(monkeypatch):
    """Natively with the threads; on torch with the reason."""
    if native.team() is not None:
        assert native.describe() == f"native, {target.describe()}, {native.threads()} threads"
    native.team.cache_clear()
    monkeypatch.setenv(native.CHOICE_VARIABLE, "torch")
    try:
        assert native.describe() == "torch alone: ENGINE_KERNELS=torch"
    finally:
        native.team.cache_clear()
