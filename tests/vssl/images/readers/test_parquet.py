"""Parquet files with image bytes are read as Hugging Face and others write them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.tiny_model import picture
from vssl.errors import FormatError, ImageError, InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


def pixels(source: ImageSource, row: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.read(row))))


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "png")
    return file.getvalue()


class TestParquet:
    def write(self, path: Path, columns: dict[str, object], features: object = None) -> str:
        table = pa.table(columns)
        if features is not None:
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        pq.write_table(table, path, row_group_size=3)
        return f"parquet:{path}"

    def test_struct_with_paths_and_named_classes(self, tmp_path: Path) -> None:
        images = [{"bytes": png(seed), "path": f"p{seed}.png"} for seed in range(8)]
        names = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
        spec = self.write(tmp_path / "a.parquet", {"image": images, "label": [0, 1] * 4}, names)
        source = open_source(spec)
        assert [item.id for item in source.items] == [f"p{seed}.png" for seed in range(8)]
        assert [item.label for item in source.items] == ["cat", "dog"] * 4
        for row in (7, 0, 4, 1, 7):
            assert np.array_equal(pixels(source, row), picture(row))

    def test_plain_bytes_without_labels(self, tmp_path: Path) -> None:
        source = open_source(self.write(tmp_path / "a.parquet", {"image": [png(0), png(1)]}))
        assert [item.id for item in source.items] == ["a.parquet/0", "a.parquet/1"]
        assert source.items[0].label is None

    def test_text_and_unnamed_labels(self, tmp_path: Path) -> None:
        columns: dict[str, object] = {"image": [png(0), png(1)], "label": ["red", None]}
        source = open_source(self.write(tmp_path / "a.parquet", columns))
        assert [item.label for item in source.items] == ["red", None]
        source = open_source(self.write(tmp_path / "b.parquet", {"image": [png(0)], "label": [3]}))
        assert source.items[0].label == "3"

    def test_paths_that_repeat_are_no_ids(self, tmp_path: Path) -> None:
        images = [{"bytes": png(seed), "path": "same.png"} for seed in range(2)]
        source = open_source(self.write(tmp_path / "a.parquet", {"image": images}))
        assert [item.id for item in source.items] == ["a.parquet/0", "a.parquet/1"]

    def test_a_row_without_bytes_is_that_image_alone(self, tmp_path: Path) -> None:
        source = open_source(self.write(tmp_path / "a.parquet", {"image": [png(0), None]}))
        assert np.array_equal(pixels(source, 0), picture(0))
        with pytest.raises(ImageError, match="no image bytes"):
            source.read(1)

    def test_what_is_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no Parquet file"):
            open_source(f"parquet:{tmp_path / 'none.parquet'}")
        (tmp_path / "text.parquet").write_text("hello")
        with pytest.raises(FormatError, match="not a readable Parquet"):
            open_source(f"parquet:{tmp_path / 'text.parquet'}")
        with pytest.raises(InputError, match="column `image`"):
            open_source(self.write(tmp_path / "a.parquet", {"left": [png(0)], "right": [png(1)]}))
        with pytest.raises(InputError, match="column `image`"):
            open_source(self.write(tmp_path / "b.parquet", {"image": [1, 2]}))
        empty = self.write(tmp_path / "c.parquet", {"image": pa.array([], pa.binary())})
        with pytest.raises(InputError, match="no rows"):
            open_source(empty)

    @pytest.mark.parametrize("column", ["img", "photo"])
    def test_the_column_may_have_another_name(self, tmp_path: Path, column: str) -> None:
        images = [{"bytes": png(seed), "path": f"p{seed}.png"} for seed in range(4)]
        source = open_source(self.write(tmp_path / "a.parquet", {column: images, "label": range(4)}))
        assert [item.id for item in source.items] == [f"p{seed}.png" for seed in range(4)]
        assert np.array_equal(pixels(source, 3), picture(3))

    def test_of_several_columns_of_bytes_image_is_taken(self, tmp_path: Path) -> None:
        source = open_source(self.write(tmp_path / "a.parquet", {"mask": [png(1)], "image": [png(0)]}))
        assert np.array_equal(pixels(source, 0), picture(0))

    def test_labels_of_cifar100_are_its_fine_ones(self, tmp_path: Path) -> None:
        features = {"fine_label": {"names": ["apple", "bee"], "_type": "ClassLabel"}}
        columns: dict[str, object] = {"img": [png(0), png(1)], "fine_label": [1, 0], "coarse_label": [5, 6]}
        source = open_source(self.write(tmp_path / "a.parquet", columns, features))
        assert [item.label for item in source.items] == ["bee", "apple"]

    @pytest.mark.parametrize("how", ["folder", "pattern", "range"])
    def test_shards_are_one_source_in_the_order_of_their_numbers(self, tmp_path: Path, how: str) -> None:
        (tmp_path / "data").mkdir()
        for shard in range(11):
            self.write(tmp_path / f"data/train-{shard}.parquet", {"image": [png(shard)]})
        (tmp_path / "data/._train-0.parquet").write_bytes(b"left by a Mac")
        ends = {"folder": "", "pattern": "/data/train-*.parquet", "range": "/data/train-{0..10}.parquet"}
        source = open_source(f"parquet:{tmp_path}{ends[how]}")
        assert [item.id for item in source.items] == [f"train-{n}.parquet/0" for n in range(11)]
        assert np.array_equal(pixels(source, 10), picture(10))

    def test_a_file_needs_no_prefix(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.parquet", {"image": [png(0), png(1)]})
        assert len(open_source(tmp_path / "a.parquet").items) == 2

    @pytest.mark.parametrize("rest", ["empty", "none*.parquet", "~nosuchuser/x.parquet"])
    def test_where_no_file_is_one_sentence_says_so(self, tmp_path: Path, rest: str) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"no Parquet file at|no home folder of that user"):
            open_source(f"parquet:{rest if rest.startswith('~') else tmp_path / rest}")

    def test_labels_that_are_lists_are_refused_with_their_row(self, tmp_path: Path) -> None:
        columns: dict[str, object] = {"image": [png(0), png(1)], "label": [None, ["cat", "pet"]]}
        with pytest.raises(InputError, match=r"row 1: the label .*neither a text nor a number"):
            open_source(self.write(tmp_path / "a.parquet", columns))

    def test_a_damaged_file_is_one_sentence(self, tmp_path: Path) -> None:
        """Wherever a byte is flipped: a listing, an image that cannot be read, or one of our errors."""
        self.write(tmp_path / "a.parquet", {"image": [png(0), png(1)], "label": ["red", "green"]})
        whole = (tmp_path / "a.parquet").read_bytes()
        random, kinds = np.random.default_rng(0), set()
        for place in random.integers(0, len(whole), 150):
            data = bytearray(whole)
            data[place] ^= 1 << int(random.integers(8))
            (tmp_path / "b.parquet").write_bytes(data)
            try:
                source = open_source(f"parquet:{tmp_path / 'b.parquet'}")
                kinds.add("listed")
                for row in range(len(source.items)):
                    source.read(row)
            except (InputError, FormatError, ImageError) as error:
                kinds.add(type(error).__name__)
        assert {"listed", "FormatError"} <= kinds


TWO_READERS = """
import sys, threading
import pyarrow as pa
from pathlib import Path
from vssl.images.readers.parquet import ParquetSource

pa.set_cpu_count(1)
source = ParquetSource([Path(sys.argv[1])])

def read(turn):
    for step in range(1000):
        row = (step * 37 + turn * 191) % 400
        assert source.read(row) == bytes([row % 256]) * 3000

readers = [threading.Thread(target=read, args=(turn,), daemon=True) for turn in range(4)]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join(20)
sys.exit(any(reader.is_alive() for reader in readers))
"""


def test_several_threads_read_where_arrow_has_one(tmp_path: Path) -> None:
    """As on a machine of one core: Arrow's readers there wait for each other for ever."""
    file = tmp_path / "images.parquet"
    images = [bytes([row % 256]) * 3000 for row in range(400)]
    pq.write_table(pa.table({"image": images, "label": [0] * 400}), file, row_group_size=20)
    done = subprocess.run([sys.executable, "-c", TWO_READERS, str(file)], check=False, timeout=100)
    assert done.returncode == 0
