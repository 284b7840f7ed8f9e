"""Saved indexes are whole or not used: any flipped bit, missing or additional file is noticed."""

import json
from pathlib import Path

import numpy as np
import pytest

from index.gallery.folder.derived import find_derived, save_derived

ROWS, CRC = np.array([3, 5, 9]), np.array([7, 8, 2**32 - 1])


def write(folder: Path) -> None:
    (folder / "data.bin").write_bytes(bytes(range(256)))


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    save_derived(tmp_path, "cosine", 4, ROWS, CRC, write)
    found, damage = find_derived(tmp_path, "cosine")
    assert damage is None
    assert found is not None
    assert found.generation == 4
    np.testing.assert_array_equal(found.rows, ROWS)
    np.testing.assert_array_equal(found.crc, CRC)
    assert (found.folder / "data.bin").read_bytes() == bytes(range(256))


def test_nothing_there_is_no_damage(tmp_path: Path) -> None:
    assert find_derived(tmp_path, "cosine") == (None, None)
    save_derived(tmp_path, "reverse-kl", 1, ROWS, CRC, write)
    assert find_derived(tmp_path, "kl") == (None, None)


def test_a_newer_one_takes_the_place_of_older_ones(tmp_path: Path) -> None:
    for generation in (2, 9, 10):
        save_derived(tmp_path, "kl", generation, ROWS, CRC, write)
    save_derived(tmp_path, "reverse-kl", 3, ROWS, CRC, write)
    found, _ = find_derived(tmp_path, "kl")
    assert found is not None
    assert found.generation == 10
    assert sorted(p.name for p in (tmp_path / "derived").iterdir()) == [
        "kl-000000000010",
        "reverse-kl-000000000003",
    ]


def test_saving_a_generation_again_replaces_it(tmp_path: Path) -> None:
    folder = save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    (folder / "index" / "data.bin").write_bytes(b"damaged")
    assert find_derived(tmp_path, "kl")[0] is None
    save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    assert find_derived(tmp_path, "kl")[0] is not None


@pytest.mark.parametrize("name", ["index/data.bin", "rows.npy"])
def test_any_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    folder = save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    data = (folder / name).read_bytes()
    for at in (0, len(data) // 2, len(data) - 1):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            (folder / name).write_bytes(changed)
            found, damage = find_derived(tmp_path, "kl")
            assert found is None
            assert damage is not None
            assert f"{name} does not match its checksum" in damage
    (folder / name).write_bytes(data)
    assert find_derived(tmp_path, "kl")[0] is not None


def test_a_truncated_or_missing_file_is_noticed(tmp_path: Path) -> None:
    folder = save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    (folder / "index" / "data.bin").write_bytes(b"")
    assert find_derived(tmp_path, "kl")[0] is None
    (folder / "index" / "data.bin").unlink()
    assert find_derived(tmp_path, "kl")[0] is None


def test_an_unfinished_folder_is_passed_over_and_cleared_away(tmp_path: Path) -> None:
    home = tmp_path / "derived"
    (home / ".kl-000000000009.1.tmp").mkdir(parents=True)
    (home / "kl-000000000008").mkdir()
    assert find_derived(tmp_path, "kl")[0] is None
    save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    assert [p.name for p in home.iterdir()] == ["kl-000000000002"]


def test_another_format_or_distance_is_passed_over(tmp_path: Path) -> None:
    folder = save_derived(tmp_path, "kl", 2, ROWS, CRC, write)
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ({"format": 99}, {"distance": "mls"}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        assert find_derived(tmp_path, "kl")[0] is None
