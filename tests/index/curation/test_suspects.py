"""Wrong labels are suspected, by the vote of the nearest others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.curation import suspects as module
from index.curation.suspects import suspects
from index.gallery.folder.gallery import FolderGallery
from tests.index.curation.conftest import planted
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.store import Rows
from vssl.errors import InputError


def test_wrong_labels_are_suspected(gallery: FolderGallery) -> None:
    _, _, wrong = planted()
    found = suspects(gallery, limit=15)
    assert len({s.id for s in found} & wrong) >= 12
    for suspect in found:
        assert suspect.suggested != suspect.label
        assert 0 <= suspect.own_share <= suspect.share <= 1
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_the_vote_is_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights exp(-distance / 0.07) times the certainty of each voter, whatever the blocks."""
    monkeypatch.setattr(module, "BLOCK", 7)
    rows = planted()[0]
    with FolderGallery.create(tmp_path / "g", card=card(32), model_id=MODEL, normalise=False) as gallery:
        gallery.add(rows)
        near = [gallery.neighbourhood(20, white=white) for white in (False, True)]
        found = {suspect.id: suspect for suspect in suspects(gallery, limit=1000)}
    suspected = []
    for side in near:
        doubted = {}
        for row in range(len(side)):
            vote: dict[str, float] = {}
            for other, distance in zip(side.graph.rows[row], side.graph.distances[row], strict=True):
                weight = np.exp(-(distance - side.graph.distances[row, 0]) / 0.07)
                label = side.labels[other] or ""
                vote[label] = vote.get(label, 0.0) + weight * (1 - side.uncertainty[other])
            best = max(vote, key=lambda name: vote[name])
            if best != side.labels[row]:
                doubted[side.ids[row]] = best, vote[best] / sum(vote.values())
        suspected.append(doubted)
    expected = min(suspected, key=len)
    assert {name: suspect.suggested for name, suspect in found.items()} == {
        n: e[0] for n, e in expected.items()
    }
    for name, (_, share) in expected.items():
        assert found[name].share == pytest.approx(share, rel=1e-5)


def test_a_gallery_without_labels_is_refused_and_one_image_has_no_voters(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        with pytest.raises(InputError, match="no labels"):
            suspects(gallery)
        gallery.add(Rows(["a"], ["a.png"], ["x"], gaussians(1)))
        assert suspects(gallery) == []
