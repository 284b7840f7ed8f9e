"""What the tests of extraction start from; a module that changes its photos makes its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.photo_folder import photo_folder
from tests.support.tiny_model import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("photos"))
