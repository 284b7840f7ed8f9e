"""Encodings that travel as text rank and bound as the definitions do."""

import json

import numpy as np
import pytest

from index.distances import NAMES, pairwise
from index.gallery.milvus.encoding import Encoding
from tests.index.samples import gaussians

ITEMS, QUERIES = gaussians(120).normalised(), gaussians(6, seed=1).normalised()


@pytest.mark.parametrize("name", NAMES)
def test_no_score_promises_more_than_the_distance(name: str) -> None:
    """Offset minus score never lies above the true distance, after a journey through text and an addition."""
    first, widened = Encoding.of(name, ITEMS[:80]).items(ITEMS[:80])
    texts = json.loads(json.dumps(widened.to_texts()))
    again = Encoding.from_texts(name, texts)
    assert again is not None
    more, again = again.items(ITEMS[80:])
    stored = np.concatenate([first, more])
    phi, offset = again.queries(QUERIES)
    scores = (phi.astype(np.float64)[:, None] * stored[None]).sum(axis=2)
    bounds = np.stack([again.left(offset, scores[:, i]) for i in range(120)], axis=1)
    table = pairwise(name, QUERIES, ITEMS, again.parameters)
    assert (bounds <= table + 1e-9 * np.abs(table)).all()
    assert not np.allclose(bounds, bounds[:, :1])


def test_without_items_there_is_no_encoding() -> None:
    assert Encoding.from_texts("cosine", {}) is None
