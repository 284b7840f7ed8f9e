"""An empty store of record."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index.gallery.folder.store import STORE, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / STORE, {"dim": "8", "model_id": "m"})
    yield made
    made.close()
