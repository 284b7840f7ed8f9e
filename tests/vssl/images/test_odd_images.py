"""A collection of odd, broken and hostile files: each gets its picture, or an error, in bounded memory and time."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vssl.images.formats import CLAIMED_FORMATS

ODD_IMAGES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "odd_images.tar"

DECODE_ALL = """
import json, resource, sys, tarfile, warnings
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
import numpy as np
from vssl.images.decode import decode
from vssl.errors import ImageError
from vssl.model.identity import sha256_bytes
answers = {}
with tarfile.open(sys.argv[1]) as tar:
    for member in tar:
        if member.isfile():
            try:
                image = decode(tar.extractfile(member).read())
                assert image.mode == "RGB"
                answers[member.name] = [*image.size, sha256_bytes(image.tobytes())]
            except ImageError as error:
                answers[member.name] = error.code
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, object]:
    command = [sys.executable, "-c", DECODE_ALL, str(ODD_IMAGES)]
    found = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=240
    )
    answers: dict[str, object] = json.loads(found.stdout)
    return answers


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, str]]:
    with tarfile.open(ODD_IMAGES) as tar:
        file = tar.extractfile("odd/manifest.csv")
        assert file is not None
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))


@pytest.mark.skipif(not ODD_IMAGES.exists(), reason="needs odd_images.tar next to the checkout")
class TestOddImages:
    """725 odd, broken and hostile files, in a process of its own with bounded memory and time."""

    def test_every_file_gets_an_answer(
        self, answers: dict[str, object], manifest: list[dict[str, str]]
    ) -> None:
        assert {f"odd/{row['path']}" for row in manifest} <= set(answers)
        assert len(manifest) > 700

    def test_valid_files_of_claimed_types_decode_to_their_size(
        self, answers: dict[str, object], manifest: list[dict[str, str]]
    ) -> None:
        valid = [r for r in manifest if r["expect"] == "accept" and r["content"].upper() in CLAIMED_FORMATS]
        assert len(valid) > 400
        for row in valid:
            found = answers[f"odd/{row['path']}"]
            assert isinstance(found, list), (row["path"], found)
            size = [int(row["width"]), int(row["height"])]
            turned = row["exif_orientation"] in ("5", "6", "7", "8") and row["content"] != "tiff"
            assert found[:2] == (size[::-1] if turned else size), row["path"]

    def test_what_has_no_picture_is_an_error(
        self, answers: dict[str, object], manifest: list[dict[str, str]]
    ) -> None:
        for row in manifest:
            if row["expect"] in ("reject", "limit"):
                assert isinstance(answers[f"odd/{row['path']}"], str), row["path"]
        bombs = [row for row in manifest if row["expect"] == "limit" and row["content"] in ("png", "gif")]
        assert bombs
        assert {str(answers[f"odd/{row['path']}"]) for row in bombs} == {"too_many_pixels"}

    @pytest.mark.parametrize("group", ["orientation-png", "orientation-webp", "orientation-tif"])
    def test_eight_orientations_are_one_picture(
        self, answers: dict[str, object], manifest: list[dict[str, str]], group: str
    ) -> None:
        pictures = [answers[f"odd/{row['path']}"] for row in manifest if row["group"] == group]
        assert len(pictures) == 8
        assert all(found == pictures[0] for found in pictures)
