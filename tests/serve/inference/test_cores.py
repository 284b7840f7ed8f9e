"""The cores that a process may use: its affinity, capped by the quota of its container."""

from __future__ import annotations

from pathlib import Path

from serve.inference.cores import available_cores


class TestCores:
    def test_without_a_quota_it_is_the_affinity_mask(self, tmp_path: Path) -> None:
        assert available_cores(tmp_path) >= 1
        (tmp_path / "cpu.max").write_text("max 100000\n")
        assert available_cores(tmp_path) == available_cores(tmp_path / "absent")

    def test_a_quota_caps_it(self, tmp_path: Path) -> None:
        (tmp_path / "cpu.max").write_text("50000 100000\n")
        assert available_cores(tmp_path) == 1

    def test_a_quota_of_version_1(self, tmp_path: Path) -> None:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        assert available_cores(tmp_path) == 1
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
        assert available_cores(tmp_path) == available_cores(tmp_path / "absent")
