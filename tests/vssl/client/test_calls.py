"""Requests of the client: what is sent for images, Gaussians, filters and metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vssl.client import AsyncClient, Client
from vssl.client.calls import chunks, embed_call, item_path, key_header, put_call, search_call
from vssl.embeddings.batch import Embedded
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

GAUSSIANS = GaussianEmbedding(np.eye(2, 3, dtype=np.float32), np.ones((2, 3), np.float32))


def test_images_go_out_under_their_names() -> None:
    call = embed_call([b"one", b"two"])
    assert (call.method, call.path) == ("POST", "/embed")
    assert call.options["files"] == [("images", ("image-0", b"one")), ("images", ("image-1", b"two"))]
    assert embed_call([b"one"], ["a"]).options["files"] == [("images", ("a", b"one"))]
    with pytest.raises(InputError, match="found none"):
        embed_call([])


@pytest.mark.parametrize("where", [{"year": {">": 2019}}, "label=cat"])
def test_a_search_says_only_what_was_asked(where: dict[str, object] | str) -> None:
    plain = search_call([b"one"], 10, None, None, None, None)
    assert plain.options["params"] == {"k": 10}
    asked = search_call([b"one"], 3, "mls", 0.5, where, None).options["params"]
    sent = asked.pop("where")
    assert asked == {"k": 3, "distance": "mls", "max_uncertainty": 0.5}
    assert (sent if isinstance(where, str) else json.loads(sent)) == where
    body = search_call(GAUSSIANS, 3, None, None, where, "id").options["json"]
    assert body == {
        "mean": GAUSSIANS.mean.tolist(),
        "variance": GAUSSIANS.variance.tolist(),
        "k": 3,
        "where": sent,
        "model_id": "id",
    }


def test_an_item_goes_out_with_label_and_metadata() -> None:
    call = put_call("a b/ü?#.png", b"bytes", "cat", {"year": 2024})
    assert (call.method, call.path) == ("PUT", "/gallery/a%20b/%C3%BC%3F%23.png")
    assert call.options["content"] == b"bytes"
    assert call.options["params"] == {"label": "cat", "metadata": '{"year": 2024}'}
    assert put_call("a", b"bytes", None, None).options["params"] == {}
    assert item_path("a/b") == "/gallery/a/b"


def test_a_key_is_a_header() -> None:
    assert key_header("secret") == {"X-API-Key": "secret"}
    assert key_header(None) == {}


def test_a_folder_comes_in_chunks_and_the_unreadable_is_empty(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    (tmp_path / "d.png").symlink_to(tmp_path / "nowhere.png")
    found = list(chunks(tmp_path, 3))
    assert [names for names, _ in found] == [["a.png", "b.png", "c.png"], ["d.png"]]
    assert [data for _, data in found] == [[b"a", b"b", b"c"], [b""]]


def test_a_generator_is_a_list_and_what_was_embedded_names_its_model() -> None:
    asked = embed_call(image for image in [b"one", b"two"])
    assert [name for _, (name, _) in asked.options["files"]] == ["image-0", "image-1"]
    embedded = Embedded(["a", "b"], np.arange(2), GAUSSIANS, [], "id")
    assert search_call(embedded, 3, None, None, None, None) == search_call(
        GAUSSIANS, 3, None, None, None, "id"
    )
    with pytest.raises(
        InputError, match=r"found one path \(str\), expected a list; write: embed\(\[path\]\)"
    ):
        embed_call("a.jpg")


ANY: Any = object()
SEARCH: Callable[..., Any] = search_call


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: embed_call(ANY), "images: found object, expected a list of paths"),
        (lambda: SEARCH([b"a"], "3", None, None, None, None), "k: found str '3', expected a whole number"),
        (lambda: SEARCH([b"a"], 3, 7, None, None, None), "distance: found int 7, expected a text or None"),
        (lambda: SEARCH([b"a"], 3, None, "0.1", None, None), "max_uncertainty: found str '0.1', expected a number"),
        (lambda: SEARCH([b"a"], 3, None, None, 5, None), "where: found int 5, expected a mapping or a text"),
        (lambda: SEARCH([b"a"], 3, None, None, {"a": ANY}, None), "where: found .*, expected texts, numbers"),
        (lambda: SEARCH(GAUSSIANS, 3, None, None, {"a": ANY}, None), "where: found .*, expected texts, numbers"),
        (lambda: put_call(ANY, b"a", None, None), "id: found object .*, expected a text"),
        (lambda: put_call("a", ANY, None, None), "image: found object, expected a path, bytes"),
        (lambda: put_call("a", b"a", ANY, None), "label: found object .*, expected a text or None"),
        (lambda: put_call("a", b"a", None, ANY), "metadata: found object .*, expected a mapping"),
        (lambda: put_call("a", b"a", None, {"a": ANY}), "metadata: found .*, expected texts, numbers"),
        (lambda: list(chunks(ANY, 3)), "source: found object .*, expected a path"),
        (lambda: list(chunks("images", ANY)), "chunk: found object .*, expected a whole number"),
        (lambda: Client(ANY), "url: found object .*, expected a text"),
        (lambda: AsyncClient(ANY), "url: found object .*, expected a text"),
        (lambda: Client("http://127.0.0.1:9", api_key=ANY), "api_key: found object .*, expected a text"),
        (lambda: Client("http://127.0.0.1:9", timeout_s=ANY), "timeout_s: found object .*, expected a number"),
        (lambda: Client("http://127.0.0.1:9", retries=ANY), "retries: found object .*, expected a whole number"),
    ],
)  # fmt: skip
def test_an_argument_of_another_type_is_refused_before_anything_is_sent(
    call: Callable[[], object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        call()
