"""Hundreds of odd, broken and hostile images through the running server, alone and among good ones."""

from __future__ import annotations

import base64
import csv
import io
import tarfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serve.http.conftest import World, encoded
from vssl.images.decode import formats

ARCHIVE = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "odd_images.tar"
CLAIMED = {name.lower() for name in formats()} | {"mpo"}


@pytest.fixture(scope="module")
def odd() -> list[tuple[dict[str, str], bytes]]:
    if not ARCHIVE.is_file():
        pytest.skip("the archive of odd images is not next to the checkout")
    with tarfile.open(ARCHIVE) as archive:
        members = {m.name: m for m in archive.getmembers() if m.isfile()}
        root = next(name for name in members if name.endswith("manifest.csv")).removesuffix("manifest.csv")

        def read(name: str) -> bytes:
            file = archive.extractfile(members[root + name])
            assert file is not None
            return file.read()

        rows = list(csv.DictReader(io.StringIO(read("manifest.csv").decode())))
        return [(row, read(row["path"])) for row in rows]


def test_each_gets_an_embedding_or_a_reason(
    http: httpx.Client, odd: list[tuple[dict[str, str], bytes]]
) -> None:
    for row, data in odd:
        answer = http.post("/embed", content=data)
        claimed = row["content"].lower() in CLAIMED
        if row["expect"] == "accept" and claimed and len(data) < 2_000_000:
            assert answer.status_code == 200, (row["path"], answer.text)
        elif row["expect"] in ("reject", "limit"):
            assert answer.status_code in (400, 413, 415, 422), (row["path"], answer.status_code)
        assert answer.status_code == 200 or answer.json()["error"]["message"], row["path"]
        assert answer.status_code < 500, row["path"]


def test_no_good_neighbour_is_harmed(
    http: httpx.Client, world: World, odd: list[tuple[dict[str, str], bytes]]
) -> None:
    good = encoded(1)
    mean, variance, _ = world.expected(good)
    small = [data for _, data in odd if len(data) < 100_000]
    for start in range(0, len(small), 14):
        batch = [good, *small[start : start + 14], good]
        body = {"images": [{"base64": base64.b64encode(d).decode()} for d in batch]}
        answer = http.post("/embed", json=body)
        assert answer.status_code == 200
        results = answer.json()["results"]
        for result in (results[0], results[-1]):
            np.testing.assert_allclose(result["mean"], mean, atol=1e-5)
            np.testing.assert_allclose(result["variance"], variance, rtol=1e-5)
    assert http.get("/readyz").status_code == 200
