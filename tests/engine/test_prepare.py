"""Model folders: made whole or not at all, resumed after an interruption, never used when damaged."""

import json
import struct
import threading
from pathlib import Path

import pytest

from engine.contract import ModelUnusable
from engine.models import kitchen, prepare, smollm2
from engine.models.kitchen import Part, Recipe, make


class Interrupted(BaseException):
    """What a killed process looks like to the code."""


class Kitchen:
    """A small recipe that counts what is made and can be interrupted."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.made: list[str] = []
        self.said: list[str] = []
        self.stop_at = stop_at

    def recipe(self, version: int = 1) -> Recipe:
        names = [f"part-{i}" for i in range(4)]
        parts = tuple(Part(name, 1000, lambda name=name: self.make(name)) for name in names)
        return Recipe("toy", version, "source", parts, self.finish)

    def make(self, name: str) -> bytes:
        if name == self.stop_at:
            raise Interrupted
        self.made.append(name)
        return name.encode().ljust(1000, b".")

    def finish(self, folder: Path) -> None:
        if self.stop_at == "finish":
            raise Interrupted
        (folder / "config.json").write_text("{}")

    def report(self, done: int, total: int, text: str) -> None:
        assert 0 <= done <= total or total == 0
        self.said.append(text)


def test_a_folder_is_made_once(tmp_path):
    """The second time nothing is made and nothing is said."""
    first, second = Kitchen(), Kitchen()
    folder = make(first.recipe(), tmp_path, first.report)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "manifest.json", *first.made]
    assert make(second.recipe(), tmp_path, second.report) == folder
    assert (second.made, second.said) == ([], [])


@pytest.mark.parametrize("stop_at", ["part-0", "part-2", "finish"])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, stop_at):
    """Finished parts are kept; what was under way is made again; no half folder is ever in place."""
    first = Kitchen(stop_at)
    with pytest.raises(Interrupted):
        make(first.recipe(), tmp_path, first.report)
    assert not (tmp_path / "toy").exists()
    second = Kitchen()
    make(second.recipe(), tmp_path, second.report)
    assert first.made + second.made == ["part-0", "part-1", "part-2", "part-3"]
    assert kitchen.fault(second.recipe(), tmp_path / "toy") is None
    assert not (tmp_path / "toy.partial").exists()


@pytest.mark.parametrize("spoil", ["truncate", "change", "unlisted", "notes"])
def test_damaged_parts_are_made_again(tmp_path, spoil):
    """What an interrupted run left is trusted only if its bytes are as noted."""
    with pytest.raises(Interrupted):
        make(Kitchen("part-2").recipe(), tmp_path, lambda *a: None)
    partial = tmp_path / "toy.partial"
    if spoil == "truncate":
        (partial / "part-1").write_bytes(b"part-1")
    elif spoil == "change":
        (partial / "part-1").write_bytes(b"x" * 1000)
    elif spoil == "unlisted":
        (partial / "part-2").write_bytes(b"half of it")
    else:
        (partial / "finished.json").write_text('{"files": ')
    second = Kitchen()
    folder = make(second.recipe(), tmp_path, second.report)
    assert second.made[-2:] == ["part-2", "part-3"]
    assert ("part-1" in second.made) == (spoil != "unlisted")
    assert all(
        (folder / f"part-{i}").read_bytes() == f"part-{i}".encode().ljust(1000, b".") for i in range(4)
    )


@pytest.mark.parametrize("spoil", ["truncate", "missing", "manifest", "no manifest", "version"])
def test_a_damaged_folder_is_never_used(tmp_path, spoil):
    """It is made anew, and the reason is said."""
    kitchen_ = Kitchen()
    folder = make(kitchen_.recipe(), tmp_path, kitchen_.report)
    version = 1
    if spoil == "truncate":
        (folder / "part-1").write_bytes(b"short")
    elif spoil == "missing":
        (folder / "part-3").unlink()
    elif spoil == "manifest":
        (folder / "manifest.json").write_text("[]")
    elif spoil == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        version = 2
    again = Kitchen()
    make(again.recipe(version), tmp_path, again.report)
    assert len(again.made) == 4
    assert "making it anew" in again.said[0]
    assert kitchen.fault(again.recipe(version), folder) is None


def test_no_disk_is_said_before_the_work(tmp_path, monkeypatch):
    """A full disk is one clear line and leaves nothing half done."""
    monkeypatch.setattr(kitchen.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10 * 2**20}))
    chef = Kitchen()
    with pytest.raises(ModelUnusable, match="10 MB free"):
        make(chef.recipe(), tmp_path, chef.report)
    assert chef.made == []


def test_two_processes_do_not_make_one_folder_at_once(tmp_path):
    """The second waits for the first and uses what it made."""
    entered, leave = threading.Event(), threading.Event()
    first, second = Kitchen(), Kitchen()

    def slow(name: str) -> bytes:
        entered.set()
        assert leave.wait(10)
        return b"."

    recipe = Recipe("toy", 1, "source", (Part("part-0", 1, lambda: slow("part-0")),), first.finish)
    one = threading.Thread(target=make, args=(recipe, tmp_path, first.report))
    one.start()
    assert entered.wait(10)
    two = threading.Thread(target=make, args=(recipe, tmp_path, second.report))
    two.start()
    while not second.said:
        threading.Event().wait(0.01)
    leave.set()
    one.join(10)
    two.join(10)
    assert second.said == ["another process is preparing the model; waiting"]


def test_the_gguf_is_verified(tmp_path, monkeypatch):
    """A damaged wheel is named, with what to do."""
    fake = tmp_path / "model.gguf"
    fake.write_bytes(b"GGUF")
    monkeypatch.setattr(smollm2, "_locate", lambda: fake)
    with pytest.raises(ModelUnusable, match=r"has 4 bytes, expected 98362432; reinstall it"):
        prepare(smollm2.NAME, tmp_path / "data", lambda *a: None)
    assert not (tmp_path / "data" / "models" / smollm2.NAME).exists()


def test_unknown_models_are_named(tmp_path):
    """The message lists what there is."""
    with pytest.raises(ModelUnusable, match="smollm2-135m-instruct"):
        prepare("gpt-9", tmp_path, lambda *a: None)


def test_an_unwritable_data_folder_is_one_line(tmp_path):
    """No traceback of the operating system."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ModelUnusable, match="data"):
        prepare(smollm2.NAME, tmp_path / "data", lambda *a: None)


def write_model(folder: Path, values: int = 4) -> Path:
    """Write the smallest folder that can be accepted."""
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * values))
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return folder


def test_a_whole_folder_is_accepted_as_it_is(tmp_path):
    """A user's own model is checked and used where it lies."""
    folder = write_model(tmp_path / "model")
    before = sorted(p.name for p in folder.iterdir())
    assert prepare(str(folder), tmp_path / "data", lambda *a: None) == folder
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_prepared_folder_is_accepted_by_path(smollm2, tmp_path):
    """What a recipe made passes the check for users' folders."""
    assert prepare(str(smollm2), tmp_path, lambda *a: None) == smollm2.resolve()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", b"{", "config.json is not valid JSON"),
        ("config.json", b"{}", "names no architectures"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("model.safetensors", None, "holds no weights"),
        ("model.safetensors", b"", "not a whole safetensors file"),
        ("model.safetensors", struct.pack("<Q", 4) + b"nope", "damaged safetensors header"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "has no weight_map"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"w": "gone.safetensors"}}',
            "gone.safetensors is missing",
        ),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "../w"}}', "no file name"),
        ("model.safetensors.index.json", b'{"weight_map": {"v": "model.safetensors"}}', "lacks tensor v"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, file, content, message):
    """Whatever is wrong with a folder, the message says which file."""
    folder = write_model(tmp_path / "model")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelUnusable, match=message):
        prepare(str(folder), tmp_path, lambda *a: None)


def test_truncated_weights_are_named(tmp_path):
    """A download that broke off is noticed before minutes of loading."""
    folder = write_model(tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelUnusable, match=r"model\.safetensors has \d+ bytes, its header says \d+"):
        prepare(str(folder), tmp_path, lambda *a: None)


def test_prepared_weights_are_the_models(smollm2):
    """Names, shapes and a permuted row are as transformers wants them."""
    from safetensors import safe_open

    index = json.loads((smollm2 / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(index) == 272
    name = "model.layers.0.self_attn.k_proj.weight"
    with safe_open(smollm2 / index[name], "numpy") as file:
        assert file.get_tensor(name).shape == (192, 576)


def test_unpermute_undoes_llama_cpp():
    """llama.cpp interleaves the halves of each head."""
    import numpy as np

    weight = np.arange(2 * 8 * 3).reshape(16, 3)  # 2 heads of 8 rows
    permuted = weight.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(16, 3)
    assert (smollm2.unpermute(permuted, 2) == weight).all()
