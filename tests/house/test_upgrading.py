"""Files of another version of vssl: each is refused with a sentence that says what to do, or read as before.

docs/how-to/upgrading.md has the table; what becomes of flipped bytes is tested with each file's own module.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.serve.inference.test_engine import rewrite
from tests.support.tiny_model import tiny_model
from tests.support.tiny_run import image_folder, tiny_run
from tests.vssl.cli.command import vssl
from vssl.embeddings.manifest import write_manifest
from vssl.model.card import CARD_KEY

UPGRADING = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "upgrading.md"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Images, a model, embeddings and a gallery of this version."""
    images = image_folder(tmp_path / "images", 12)
    model = tiny_model(tmp_path / "model.onnx")
    for words in (
        ("extract", images, tmp_path / "embeddings", "--model", model),
        ("index", tmp_path / "embeddings", tmp_path / "gallery"),
    ):
        done = vssl(*words)
        assert done.returncode == 0, done.stderr
    return tmp_path


def refusal(*words: object) -> str:
    """Return the one sentence by which a command is refused."""
    done = vssl(*words)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("vssl: ")]
    assert "Traceback" not in done.stderr
    return said[-1]


def test_a_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", image_folder(tmp_path / "images", 12))
    torch.save({"format": 99}, run / "checkpoint.pt")
    said = refusal("export", run, tmp_path / "model.onnx")
    assert "found checkpoint format 99, expected 2" in said
    assert "Train again, or use that version" in said
    assert not (tmp_path / "model.onnx").exists()


def test_a_run_without_a_seal_is_read(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", image_folder(tmp_path / "images", 12))
    values = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save({**values, "format": 1}, run / "checkpoint.pt")
    done = vssl("inspect", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artefact"] == "checkpoint"


def test_a_model(home: Path) -> None:
    def newer(_: object, properties: dict[str, str]) -> None:
        properties[CARD_KEY] = json.dumps({**json.loads(properties[CARD_KEY]), "format": 2})

    rewrite(home / "model.onnx", newer)
    said = refusal("extract", home / "images", home / "new", "--model", home / "model.onnx")
    assert "found format 2, expected 1; export the model again" in said


def test_a_model_whose_card_lacks_newer_entries_is_read(home: Path) -> None:
    def older(_: object, properties: dict[str, str]) -> None:
        card = json.loads(properties[CARD_KEY])
        for name in ("licence", "supervision", "uncertainty_fit"):
            card.pop(name, None)
        properties[CARD_KEY] = json.dumps(card)

    rewrite(home / "model.onnx", older)
    done = vssl("extract", home / "images", home / "new", "--model", home / "model.onnx")
    assert done.returncode == 0, done.stderr


def test_embeddings(home: Path) -> None:
    path = home / "embeddings" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    said = refusal("index", home / "embeddings", home / "new")
    assert "found format 9, expected 2" in said
    assert "extract" in said
    assert not (home / "new").exists()


def test_a_part_of_embeddings(home: Path) -> None:
    folder = home / "embeddings"
    manifest = json.loads((folder / "manifest.json").read_text())
    (name,) = manifest["parts"]
    table = pq.read_table(folder / name)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"vssl.format": b"7"}), folder / name
    )
    write_manifest(
        folder,
        model_id=manifest["model_id"],
        parts=[name],
        rows=manifest["rows"],
        failures=manifest["failures"],
    )
    said = refusal("index", folder, home / "new")
    assert "found format 7, expected 1" in said
    assert "extract the folder again" in said


def test_a_gallery(home: Path) -> None:
    from index.gallery.folder.store import Store

    store = Store(home / "gallery" / "store.db")
    store.set_fact("format", "9")
    store.close()
    said = refusal("search", home / "gallery", home / "images", "--model", home / "model.onnx")
    assert "found gallery format 9, expected 2" in said
    assert "vssl index EMBEDDINGS GALLERY" in said


def test_an_index_beside_the_store_is_built_again(home: Path) -> None:
    words = (
        "search",
        home / "gallery",
        home / "images" / "odd",
        "--model",
        home / "model.onnx",
        "-k",
        3,
        "--json",
    )
    before = vssl(*words)
    for manifest in (home / "gallery" / "derived").rglob("manifest.json"):
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    after = vssl(*words)
    assert (after.returncode, after.stdout) == (0, before.stdout)


def test_a_gallery_in_milvus(home: Path) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    place = f"milvus:{home / 'lite.db'}#photos"
    moved = vssl("gallery", "move", home / "gallery", place)
    assert moved.returncode == 0, moved.stderr
    from pymilvus import MilvusClient

    client = MilvusClient(str(home / "lite.db"))
    (row,) = client.query("photos_facts", filter="name == 'format'", output_fields=["*"])
    client.upsert("photos_facts", [{**row, "value": "9"}])
    client.close()
    said = refusal("search", place, home / "images", "--model", home / "model.onnx")
    assert "found gallery format 9, expected 1" in said
    assert "vssl gallery move GALLERY milvus:URI#NAME" in said


def test_the_page_names_each_of_them() -> None:
    text = UPGRADING.read_text(encoding="utf-8")
    assert all(name in text for name in ("checkpoint.pt", "model.onnx", "embeddings/", "gallery/", "Milvus"))
