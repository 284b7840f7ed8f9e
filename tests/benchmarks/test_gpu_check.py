"""The check for a GPU machine runs where nothing but training's own packages is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_agreement
from benchmarks.gpu_check import flops_per_image
from tests.benchmarks.halves import TINY_SETTINGS, write_halves
from train.methods import METHODS
from train.settings.config import NetworkConfig, TrainConfig

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def test_it_measures_every_part_and_says_what_to_type_next(tmp_path: Path) -> None:
    write_halves(tmp_path / "data", tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(TINY_SETTINGS)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bare_machine", "benchmarks.gpu_check", "--quick",
         "--device", "cpu", "--data", tmp_path / "data", "--out", tmp_path / "out", "--config", tmp_path / "tiny.toml"],
        check=True, stdout=subprocess.PIPE, text=True, timeout=280, cwd=ROOT,
    )  # fmt: skip
    facts = json.loads((tmp_path / "out" / "check.json").read_text())
    assert facts["ceilings"]["bf16_tflops"] > 0
    assert set(facts["methods"]) == set(facts["bf16"]) == set(METHODS)
    for name in METHODS:  # a CPU agrees with itself to the last bit
        assert facts["methods"][name] == {"loss_apart": 0.0, "gradient_apart": 0.0, "agrees": True}, name
        assert facts["bf16"][name]["gradient_cosine"] > 0.8, name
        assert facts["bf16"][name]["loss_apart"] < 0.2, name
    eager = facts["steps"]["eager"]
    assert eager["images_per_s"] == pytest.approx(32 / (eager["ms"] / 1000))
    assert len(eager["costs"]) == 15
    expected = (
        eager["images_per_s"] * facts["steps"]["flops_per_image"] / facts["ceilings"]["bf16_tflops"] / 1e12
    )
    assert eager["share_of_floor"] == pytest.approx(expected)
    usual = facts["usual"]
    assert usual["ratio"] == pytest.approx(usual["ours_images_per_s"] / usual["usual_images_per_s"])
    assert done.stdout.splitlines()[-1].startswith(
        "next: python -m benchmarks.gpu_train SECONDS --data HALVES --rate "
    )


def test_when_the_seconds_are_over_the_rest_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.gpu_check import main

    (tmp_path / "tiny.toml").write_text(TINY_SETTINGS)
    main(
        [
            "--quick",
            "--device",
            "cpu",
            "--seconds",
            "0",
            "--out",
            str(tmp_path),
            "--config",
            str(tmp_path / "tiny.toml"),
        ]
    )
    assert "steps: left out, the 0 s are over" in capsys.readouterr().out


def test_a_device_that_computes_otherwise_is_found() -> None:
    reference, other = gpu_agreement.tiny("vssl"), gpu_agreement.tiny("vssl")
    with torch.no_grad():
        next(iter(other.student.parameters())).mul_(1.05)
    found = gpu_agreement.compare(reference, other, CPU)
    assert not found["agrees"]
    assert found["gradient_apart"] > gpu_agreement.GRADIENT_APART


def test_the_floor_counts_eight_forwards_of_a_step_with_a_teacher() -> None:
    network = NetworkConfig("resnet18", 64, "small", 256, 4096, 4096, 4096)
    with_teacher = flops_per_image(TrainConfig(method="byol", network=network))
    alone = flops_per_image(TrainConfig(method="simclr", network=network))
    # 0.704 G multiplications a forward, 32 px, 3x3 stem with padding 2; the projector's are under 1 % of them.
    assert with_teacher == pytest.approx(8 * 2 * 0.704e9, rel=0.01)
    assert alone == pytest.approx(6 * 2 * 0.704e9, rel=0.01)
