"""--shard i/n: processes that share one folder write what one process would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve.extraction.extract import Summary, extract
from tests.serve.photo_folder import assert_same
from tests.support.tiny_model import tiny_model
from vssl.embeddings.store import read_embeddings
from vssl.errors import InputError, MismatchError


def run(photos: Path, out: Path, model: Path, **options: object) -> Summary:
    return extract(photos, out, model=model, part_rows=8, batch_size=3, workers=1, **options)  # type: ignore[arg-type]


def test_one_after_the_other_the_last_completes_the_folder(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole", model)
    for i in (2, 0, 1):
        summary = run(photos, tmp_path / "out", model, shard=(i, 3))
        assert summary.complete == (i == 1)
    assert (summary.images, summary.rows, summary.failures) == (33, 30, 3)
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))
    assert not (tmp_path / "out" / ".progress").exists()


def test_a_shard_tells_its_own_share(photos: Path, model: Path, tmp_path: Path) -> None:
    summary = run(photos, tmp_path / "out", model, shard=(0, 2))  # parts 0, 2, 4 of 5
    assert (summary.images, summary.rows + summary.failures) == (17, 17)
    assert sum(summary.reasons.values()) == summary.failures
    again = run(photos, tmp_path / "out", model, shard=(0, 2))
    assert (again.resumed, again.rows) == (17, summary.rows)


COMMAND = """
import sys
from pathlib import Path
from serve.extraction.extract import extract
extract(sys.argv[1], Path(sys.argv[2]), model=Path(sys.argv[3]), part_rows=8, batch_size=3, workers=1,
        shard=(int(sys.argv[4]), 4))
"""


def test_all_at_once(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole", model)
    base = [sys.executable, "-c", COMMAND, str(photos), str(tmp_path / "out"), str(model)]
    processes = [subprocess.Popen([*base, str(i)]) for i in range(4)]
    assert [p.wait(200) for p in processes] == [0] * 4
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))


def test_more_shards_than_parts_leave_some_idle(photos: Path, model: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", model, shard=(7, 9)).images == 0
    for i in range(9):
        run(photos, tmp_path / "out", model, shard=(i, 9))
    assert len(read_embeddings(tmp_path / "out").rows) == 30


def test_refusals(photos: Path, model: Path, tmp_path: Path) -> None:
    for wrong in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match="expected i/n with i from 0"):
            run(photos, tmp_path / "out", model, shard=wrong)
    with pytest.raises(InputError, match="shares its folder"):
        run(photos, tmp_path / "out", model, shard=(0, 2), overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match="thesis"):
        run(photos, tmp_path / "mine", model, shard=(0, 2))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    run(photos, tmp_path / "out", model, shard=(0, 2))
    with pytest.raises(MismatchError, match="the model was"):
        run(photos, tmp_path / "out", tiny_model(tmp_path / "b.onnx", seed=1), shard=(1, 2))
