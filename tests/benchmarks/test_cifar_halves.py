"""What travels in two files is the data set, image by image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cifar_halves import read_halves, write_binary
from tests.benchmarks.halves import labelled_pictures, write_halves
from vssl.images.preprocess import Preprocess, load_image
from vssl.images.sources import open_source

ROOT = Path(__file__).parents[2]
PACKER = ROOT.parent / "shared" / "gpu" / "pack_cifar.py"


def test_the_binary_version_holds_the_images_in_order(tmp_path: Path) -> None:
    write_halves(tmp_path / "a", tmp_path / "b", 300, 90)
    splits = read_halves([tmp_path / "a", tmp_path / "b"], ["half-a.bin", "half-b.bin"])
    write_binary(tmp_path / "cifar", splits)
    for split, (images, labels) in {
        "train": labelled_pictures(300, 1), "test": labelled_pictures(90, 2)
    }.items():  # fmt: skip
        source = open_source(f"cifar10:{tmp_path / 'cifar'}:{split}")
        assert len(source.items) == len(images)
        names = sorted({item.label for item in source.items})
        assert [names.index(item.label) for item in source.items] == labels.tolist()
        for row in (0, 1, 59, 60, len(images) - 1):
            assert np.array_equal(load_image(source.read(row), Preprocess(size=32, resize=32)), images[row])


def test_a_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no half-a\.bin in .*left, .*right"):
        read_halves([tmp_path / "left", tmp_path / "right"], ["half-a.bin"])


@pytest.mark.skipif(not PACKER.exists(), reason="the packer lies in ../shared, which is not here")
def test_it_reads_what_the_packer_writes(tmp_path: Path) -> None:
    program = (
        "import importlib.util, pathlib, sys; spec = importlib.util.spec_from_file_location('p', sys.argv[1]); "
        "p = importlib.util.module_from_spec(spec); spec.loader.exec_module(p); "
        "from tests.benchmarks.halves import labelled_pictures as draw; out = pathlib.Path(sys.argv[2]); "
        "p.write(out / 'half-a.bin', {'train-a': draw(300, 1), 'test': draw(20, 2)})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program, PACKER, tmp_path], check=True, env=environment)
    found = read_halves([tmp_path], ["half-a.bin"])
    for name, drawn in (("train-a", labelled_pictures(300, 1)), ("test", labelled_pictures(20, 2))):
        assert np.array_equal(found[name][0], drawn[0])
        assert np.array_equal(found[name][1], drawn[1])
