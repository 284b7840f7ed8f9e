"""`import vssl`: from a folder to a search in Python, typed, with the packages that each call needs and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vssl
from tests.support.tiny_model import picture, tiny_model
from tests.support.tiny_run import image_folder, tiny_run
from tests.vssl.cli.command import vssl as command
from vssl.errors import ExistsError, InputError, MismatchError
from vssl.model.shipped import shipped_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two class folders, and one file that is none."""
    folder = image_folder(tmp_path_factory.mktemp("api") / "photos", 12)
    (folder / "odd" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model(photos: Path) -> Path:
    return tiny_model(photos.parent / "model.onnx")


def test_the_same_is_found_as_on_the_command_line(photos: Path, model: Path, tmp_path: Path) -> None:
    encoder = vssl.load(model)
    with vssl.Gallery.create(tmp_path / "gallery", encoder.embed(photos)) as gallery:
        assert len(gallery) == gallery.opened.info()["items"] == 12
        queries = encoder.embed([photos / "odd" / "picture_3.png"])
        (answer,) = gallery.search(queries, k=3)
        report = gallery.evaluate(encoder.embed(photos), k=3, resamples=5)
    assert answer.neighbours[0].id == "odd/picture_3.png"
    assert report["counts"]["queries"] == 12
    assert 0 <= report["metrics"]["recall_at_1"] <= 1
    done = command(
        "search", tmp_path / "gallery", photos / "odd" / "picture_3.png", "--model", model, "-k", 3, "--json"
    )
    said = json.loads(done.stdout)
    assert [n["id"] for n in said["neighbours"]] == [n.id for n in answer.neighbours]
    assert [n["distance"] for n in said["neighbours"]] == [n.distance for n in answer.neighbours]


def test_a_gallery_grows_and_keeps_to_its_model(photos: Path, model: Path, tmp_path: Path) -> None:
    encoder = vssl.load(model)
    vssl.extract(photos, tmp_path / "embeddings", model=model)
    with vssl.Gallery.create(tmp_path / "gallery", tmp_path / "embeddings", distance="expected") as gallery:
        gallery.add(encoder.embed([picture(99)]), metadata=[{"year": 2026}])
        (answer,) = gallery.search(encoder.embed([picture(99)]), k=1, where={"year": 2026})
        assert answer.neighbours[0].id == "image-0"
        assert gallery.opened.remove(["image-0", "absent"]) == 1
        other = vssl.load(tiny_model(tmp_path / "other.onnx", seed=1)).embed([picture(1)])
        for use in (gallery.add, gallery.search, gallery.evaluate):
            with pytest.raises(MismatchError):
                use(other)
    with pytest.raises(ExistsError):
        vssl.Gallery.create(tmp_path / "gallery", encoder.embed(photos))
    with pytest.raises(InputError, match="found 0 embedded images"):
        vssl.Gallery.create(tmp_path / "empty", encoder.embed([]))


def test_what_is_not_embedded_is_refused_and_so_is_a_closed_gallery(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    encoder = vssl.load(model)
    embedded = encoder.embed(photos)
    paths: Any = [photos / "odd" / "picture_3.png"]
    with vssl.Gallery.create(tmp_path / "gallery", embedded) as gallery:
        for use in (gallery.add, gallery.search, gallery.evaluate):
            with pytest.raises(InputError, match="found list, expected embedded images"):
                use(paths)
        with pytest.raises(InputError, match="found list, expected embedded images"):
            vssl.Gallery.create(tmp_path / "other", paths)
        assert len(gallery.search(embedded.gaussians, k=1)) == 12
    gallery.close()  # a second time
    for closed in (lambda: gallery.search(embedded), lambda: gallery.add(embedded), lambda: len(gallery)):
        with pytest.raises(InputError, match=r"gallery is closed; open it again: vssl.Gallery.open"):
            closed()


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("search", {"k": "3"}, "k: found str '3', expected a whole number of at least 1; pass k=5"),
    ("search", {"k": 2.5}, "k: found float 2.5, expected a whole number"),
    ("search", {"k": True}, "k: found bool True, expected a whole number"),
    ("search", {"k": 0}, "k: found 0, expected at least 1"),
    ("search", {"distance": ["kl"]}, "distance: found list .*, expected a text or None"),
    ("search", {"max_uncertainty": "0.1"}, "max_uncertainty: found str '0.1', expected a number or None"),
    ("search", {"max_uncertainty": float("nan")}, "max_uncertainty: found float nan, expected a number"),
    ("search", {"max_risk": "0.1"}, "max_risk: found str '0.1', expected a number or None"),
    ("search", {"where": "label=cat"}, "where: found 'label=cat', expected an object"),
    ("evaluate", {"k": "3"}, "k: found str '3', expected a whole number"),
    ("evaluate", {"resamples": 2.5}, "resamples: found float 2.5, expected a whole number"),
    ("evaluate", {"max_risk": "0.1"}, "max_risk: found str '0.1', expected a number or None"),
    ("evaluate", {"ood": 3}, "found int, expected embedded images"),
    ("add", {"metadata": 3}, "metadata: found int 3, expected a list of one mapping an image"),
    ("add", {"metadata": [None] * 12}, "metadata: found NoneType None, expected one mapping an image"),
    ("add", {"replace": "yes"}, "replace: found str 'yes', expected True or False"),
]


def test_arguments_of_another_type_are_refused_in_our_words(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    embedded = vssl.load(model).embed(photos)
    with vssl.Gallery.create(tmp_path / "gallery", embedded) as gallery:
        for call, options, told in WRONG:
            with pytest.raises(InputError, match=told):
                getattr(gallery, call)(embedded, **options)
        (answer, *_) = gallery.search(embedded, k=np.int64(2), max_uncertainty=np.float32(1))
        assert len(answer.neighbours) == 2
        gallery.add(embedded, metadata=({"year": year} for year in range(12)), replace=True)
        assert len(gallery.search(embedded, k=12, where={"year": {">": 8}})[0].neighbours) == 3
        assert vssl.load(model).embed(np.array(embedded.paths)).names == embedded.paths
        for where in ({"year": {">": np.int64(8)}}, {"year": np.arange(9, 20)}, {"year": (9, 10, 11)}):
            assert len(gallery.search(embedded, k=12, where=where)[0].neighbours) == 3
    wrong: Any = 3
    calls: list[Callable[[], object]] = [
        lambda: vssl.load(wrong),
        lambda: vssl.load(model, threads="2"),  # type: ignore[arg-type]
        lambda: vssl.load(model, device=wrong),
        lambda: vssl.Gallery.open(wrong),
        lambda: vssl.Gallery.create(wrong, embedded),
        lambda: vssl.Gallery.create(tmp_path / "other", embedded, normalise="no"),  # type: ignore[arg-type]
        lambda: vssl.extract(wrong, tmp_path / "out"),
        lambda: vssl.extract(photos, wrong),
        lambda: vssl.extract(photos, tmp_path / "out", model=wrong),
        lambda: vssl.train(wrong, tmp_path / "run"),
        lambda: vssl.train(photos, wrong),
        lambda: vssl.export(wrong, tmp_path / "m.onnx"),
        lambda: vssl.export(tmp_path, tmp_path / "m.onnx", calibration=wrong),
    ]
    for call_ in calls:
        with pytest.raises(InputError, match=r"^\w+: found (int 3|str '(2|no)'), expected .+"):
            call_()


def test_a_run_is_trained_and_exported_by_plain_functions(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", 24)
    outcome = vssl.train(images, tmp_path / "run", recipe="small", epochs=0, size=32, batch_size=8)
    assert outcome.checkpoint.summary["train_images"] > 0
    run = tiny_run(tmp_path / "tiny", images)
    written = vssl.export(run, tmp_path / "model.onnx", calibration=images)
    assert written.model_id == vssl.load(tmp_path / "model.onnx").model_id


def fresh(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that lies in a folder, as a person does."""
    (folder / "train.py").write_text(code)
    return subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_script_called_train_beside_a_serve_py_uses_our_packages(tmp_path: Path, model: Path) -> None:
    for name in ("serve", "export", "index"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not vssl')\n")
    code = f"import vssl\nencoder = vssl.load({str(model)!r})\nprint(encoder.card.name)\n"
    done = fresh(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, "tiny-0\n"), done.stderr
    (tmp_path / "serve.py").write_text("PORT = 80\n")
    done = fresh(f"import serve\n{code}", tmp_path)
    assert "found a module serve of your own" in done.stderr


def test_importing_it_loads_nothing_and_each_call_what_it_needs(tmp_path: Path, model: Path) -> None:
    heavy = ("numpy", "torch", "onnxruntime", "faiss", "pyarrow", "httpx")
    code = f"import sys, vssl\nprint([x for x in {heavy} if x in sys.modules])\n"
    code += f"vssl.load({str(model)!r})\nprint([x for x in ('torch', 'faiss') if x in sys.modules])"
    assert fresh(code, tmp_path).stdout == "[]\n[]\n"
    assert set(dir(vssl)) == set(vssl.__all__)
    for name in vssl.__all__:
        assert getattr(vssl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vssl.nothing  # noqa: B018


def test_the_script_of_the_documents_goes_from_a_folder_to_a_search(photos: Path, tmp_path: Path) -> None:
    script = ROOT / "docs" / "start" / "search.py"
    body = [
        line for line in script.read_text().splitlines() if line.strip() and not line.startswith(("#", '"'))
    ]
    assert len(body) <= 20
    query = photos / "odd" / "picture_3.png"
    done = subprocess.run(
        [sys.executable, str(script), str(photos), str(query)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "odd/picture_3.png" in done.stdout
    assert "1 could not be read" in done.stdout
    assert (tmp_path / "python-gallery").is_dir()
    assert shipped_model().is_file()


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import vssl\n"
        "encoder = vssl.load()\n"
        "batch = encoder.embed(['a.jpg'])\n"
        "reveal_type(batch.uncertainty)\n"
        "with vssl.Gallery.open('gallery') as gallery:\n"
        "    reveal_type(gallery.search(batch, k=3)[0].neighbours[0].distance)\n"
        "vssl.load(k=3)\n"
    )
    settings = [
        "--strict",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert any("ndarray" in line and "32Bit" in line for line in told), done.stdout
    assert 'note: Revealed type is "float"' in told or 'note: Revealed type is "builtins.float"' in told
    assert len([line for line in told if line.startswith("error")]) == 1, done.stdout
