"""What is calibrated on a gallery's own labels holds for others, and is kept until the gallery has changed."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.answers import calibrations
from index.calibration.abstention_sample import AbstentionSample
from index.distances import pairwise
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.store import STORE, Store
from tests.index.brute import new
from tests.index.samples import gaussians, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError


def test_match_probabilities_hold_on_new_queries(tmp_path: Path) -> None:
    rows, queries = sample(600), gaussians(300, seed=5)
    with new(tmp_path, rows) as gallery:
        results = gallery.search(queries, 5)
    said = np.array([[n.match_probability for n in r.neighbours] for r in results])
    true = np.array([[n.label == f"group{i % 6}" for n in r.neighbours] for i, r in enumerate(results)])
    assert said.mean() == pytest.approx(true.mean(), abs=0.05)
    sure = said > np.median(said)
    assert true[sure].mean() > true[~sure].mean() + 0.1


def test_match_probability_is_null_without_repeated_labels(tmp_path: Path) -> None:
    rows = sample(60)
    rows = Rows(rows.ids, rows.paths, [None] * 60, rows.gaussians)
    with new(tmp_path, rows) as gallery:
        assert gallery.search(gaussians(1), 1)[0].neighbours[0].match_probability is None
        assert gallery.info()["match_calibration"] is None


def test_the_match_calibration_sees_each_item_s_neighbours_and_never_itself(tmp_path: Path) -> None:
    rows = sample(150)
    with new(tmp_path, rows) as gallery:
        gallery.save()
        fitted = gallery.info()["match_calibration"]
    table = pairwise("cosine", rows.gaussians.normalised(), rows.gaussians.normalised())
    np.fill_diagonal(table, np.inf)
    nearest = np.argsort(table, axis=1)[:, :10]
    labels = np.array(rows.labels)
    assert fitted["pairs"] == 1500
    assert fitted["share_same"] == pytest.approx((labels[nearest] == labels[:, None]).mean())


def test_the_match_calibration_is_kept_and_renewed(tmp_path: Path) -> None:
    with new(tmp_path, sample(200)) as gallery:
        gallery.save()
        first = gallery.info()["match_calibration"]
        gallery.add(sample(10, prefix="j"))
        gallery.search(gaussians(1), 1)
        assert gallery.info()["match_calibration"] == first
        gallery.add(sample(100, prefix="k"))
        gallery.search(gaussians(1), 1)
        assert gallery.info()["match_calibration"]["generation"] == 3
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
        assert reader.info()["match_calibration"]["generation"] == 3


def test_the_risk_needs_no_labels_and_is_kept(tmp_path: Path) -> None:
    rows = sample(400)
    rows = Rows(rows.ids, rows.paths, [None] * 400, rows.gaussians)
    with new(tmp_path, rows) as gallery:
        own = gallery.search(rows.gaussians, 2, exclude=rows.ids)
        risks = np.array([found.risk for found in own])
        assert len(own[0].neighbours) == 2
        assert risks.mean() == pytest.approx(0.5, abs=0.05)  # ranks among themselves
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
        again = reader.search(rows.gaussians, 5, exclude=rows.ids)
        assert [found.risk for found in again] == risks.tolist()  # however many are asked for
        far = GaussianEmbedding(-rows.gaussians.mean, rows.gaussians.variance)
        assert np.mean([found.risk for found in reader.search(far, 1)]) > 0.6


def former_calibrations(gallery: Path) -> None:
    """Put into a gallery of 400 items what the version before votes in them wrote: all sure, and all risky."""
    match = {
        "coefficients": [5.0, -0.001], "centre": [0.5], "scale": [1.0], "pairs": 4000, "share_same": 0.5,
        "calibration_error": 0.01, "generation": 1, "rows": 400, "last_row": 400, "constants": "", "smallest": 0.001,
    }  # fmt: skip
    direction = base64.b64encode(np.eye(1, 8, dtype=np.float16).tobytes()).decode()
    risk = {
        "directions": {"shape": [1, 8], "float16": direction}, "centre": [0.0] * 3, "scale": [1.0] * 3,
        "quantiles": [-100.0, -99.0], "is_logarithmic": True, "generation": 1, "rows": 400, "last_row": 400,
        "constants": "",
    }  # fmt: skip
    store = Store(gallery / STORE)
    store.set_fact("match.cosine", json.dumps(match))
    store.set_fact("risk.cosine", json.dumps(risk))
    store.close()


def test_a_gallery_with_the_calibrations_of_an_earlier_version_is_searched_and_calibrated_again(
    tmp_path: Path,
) -> None:
    queries, folder = gaussians(40, seed=5), tmp_path / "gallery"

    def said(gallery: FolderGallery) -> list[tuple[float | None, float | None]]:
        return [(found.neighbours[0].match_probability, found.risk) for found in gallery.search(queries, 5)]

    with new(tmp_path, sample(400)) as gallery:
        expected = said(gallery)
    former_calibrations(folder)
    with FolderGallery.open(folder, read_only=True) as reader:
        assert reader.info()["match_calibration"]["pairs"] == 4000  # still what an earlier version kept
        assert said(reader) == expected
    assert "with_votes" not in match_fact(folder)  # a reader keeps nothing
    with FolderGallery.open(folder) as gallery:
        assert said(gallery) == expected
    assert json.loads(match_fact(folder))["with_votes"]
    with FolderGallery.open(folder, read_only=True) as reader:
        assert said(reader) == expected


def match_fact(gallery: Path) -> str:
    store = Store(gallery / STORE)
    text = store.fact("match.cosine")
    store.close()
    assert text is not None
    return text


def test_few_items_have_no_risk(tmp_path: Path) -> None:
    with new(tmp_path, sample(100)) as gallery:
        assert gallery.search(gaussians(1), 3)[0].risk is None


def test_a_rule_is_calibrated_once_and_again_when_the_gallery_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[float] = []
    real = calibrations.fit_rule
    monkeypatch.setattr(calibrations, "fit_rule", lambda *a, **k: fitted.append(a[2]) or real(*a, **k))
    with new(tmp_path, sample(200)) as gallery:
        for risk in (0.3, 0.3, 0.4):
            gallery.search(gaussians(2), 3, max_risk=risk)
        assert fitted == [0.3, 0.4]
        gallery.abstention(0.3)
        gallery.add(sample(10, prefix="j"))
        gallery.abstention(0.3)
        assert fitted == [0.3, 0.4]
        gallery.add(sample(100, prefix="k"))
        gallery.abstention(0.3)
        assert fitted == [0.3, 0.4, 0.3]


def test_any_number_of_risks_may_be_named_and_the_latest_rules_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[float] = []
    real = calibrations.fit_rule
    monkeypatch.setattr(calibrations, "fit_rule", lambda *a, **k: fitted.append(a[2]) or real(*a, **k))
    risks = [0.1 + n / 1000 for n in range(calibrations.RULES + 1)]
    with new(tmp_path, sample(200)) as gallery:
        for risk in (*risks, risks[-1], risks[0]):
            gallery.abstention(risk)
    assert fitted == [*risks, risks[0]]


def test_a_later_process_reads_what_an_earlier_one_calibrated(tmp_path: Path) -> None:
    with new(tmp_path, sample(200)) as gallery:
        first = gallery.abstention(0.3)
    kept = tmp_path / "gallery" / "derived" / "abstention.cosine.npz"
    written = kept.stat().st_mtime_ns
    for risk in (0.3, 0.4):
        with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
            again = reader.abstention(risk)
        assert again.calibrated_on == first.calibrated_on
        assert (again.thresholds == first.thresholds) == (risk == 0.3)
    assert kept.stat().st_mtime_ns == written


def test_what_was_calibrated_is_made_again_when_it_does_not_fit(tmp_path: Path) -> None:
    kept = tmp_path / "gallery" / "derived" / "abstention.cosine.npz"

    def rows_after_a_search() -> int:
        with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
            assert reader.search(gaussians(1), 3, max_risk=0.3)[0].abstain in (True, False)
        read = AbstentionSample.load(kept)
        assert read is not None
        return read.rows

    with new(tmp_path, sample(200)) as gallery:
        expected = gallery.abstention(0.3).thresholds
    whole = kept.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (flipped, whole[:middle], b""):
        kept.write_bytes(damaged)
        assert AbstentionSample.load(kept) is None
        assert rows_after_a_search() == 200
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        assert gallery.abstention(0.3).thresholds == expected
        gallery.add(sample(100, prefix="k"))
    assert rows_after_a_search() == 300
    made = AbstentionSample.load(kept)
    assert made is not None
    replace(made, constants="of another fit", rows=299).save(kept)
    assert rows_after_a_search() == 300


def test_where_nothing_can_be_kept_a_rule_is_calibrated_all_the_same(tmp_path: Path) -> None:
    with new(tmp_path, sample(200)) as gallery:
        expected = gallery.abstention(0.3).thresholds
    derived = tmp_path / "gallery" / "derived"
    shutil.rmtree(derived)
    derived.write_bytes(b"a file in its place")
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
        assert reader.abstention(0.3).thresholds == expected
    assert derived.read_bytes() == b"a file in its place"


def test_a_search_does_not_wait_for_the_calibration_of_another_risk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    with new(tmp_path, sample(200)) as gallery, ThreadPoolExecutor(1) as pool:
        gallery.abstention(0.3)
        real = calibrations.fit_rule

        def slow(*arguments: Any, **options: Any) -> object:
            entered.set()
            assert leave.wait(30)
            return real(*arguments, **options)

        monkeypatch.setattr(calibrations, "fit_rule", slow)
        other = pool.submit(gallery.abstention, 0.4)
        assert entered.wait(30)
        (found,) = gallery.search(gaussians(1), 3, max_risk=0.3)
        assert found.abstain in (True, False)
        leave.set()
        assert other.result(30).best.max_risk == 0.4


def test_without_labels_there_is_nothing_to_calibrate_a_risk_on(tmp_path: Path) -> None:
    rows = sample(60)
    unlabelled = Rows(rows.ids, rows.paths, [None] * 60, rows.gaussians)
    told = "no labelled images to calibrate --max-risk on"
    with new(tmp_path, unlabelled) as gallery, pytest.raises(InputError, match=told):
        gallery.abstention(0.1)
