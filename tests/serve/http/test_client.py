"""vssl.client against the running server: files, arrays, folders, Gaussians; retries."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.http.conftest import World, encoded
from tests.serve.running import Running
from tests.support.tiny_model import picture
from vssl.client import AsyncClient, Client, ServerError
from vssl.errors import InputError


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url) as it:
        yield it


def test_files_bytes_arrays_and_pictures_are_one(client: Client, world: World, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(1))
    embedded = client.embed([file, str(file), encoded(1), picture(1), Image.open(io.BytesIO(encoded(1)))])
    assert embedded.model_id == world.engine.model_id
    assert len(embedded) == len(embedded.gaussians) == 5
    mean, variance, _ = world.expected(encoded(1))
    np.testing.assert_allclose(embedded.gaussians.mean, [mean] * 5, atol=1e-6)
    np.testing.assert_allclose(embedded.gaussians.variance, [variance] * 5, atol=1e-6)


def test_failures_are_listed_with_the_rest(client: Client, world: World) -> None:
    embedded = client.embed([encoded(1), b"junk", encoded(2)])
    assert embedded.positions.tolist() == [0, 2]
    assert (len(embedded), embedded.names, len(embedded.failures)) == (2, ["image-0", "image-2"], 1)
    (failed,) = embedded.failures
    assert (failed.position, failed.code) == (1, "unsupported_type")
    np.testing.assert_allclose(embedded.gaussians.mean[1], world.expected(encoded(2))[0], atol=1e-6)


def test_a_lone_bad_image_is_a_failure_too(client: Client) -> None:
    embedded = client.embed([b"junk"])
    assert (len(embedded), len(embedded.gaussians), len(embedded.failures)) == (0, 0, 1)
    assert embedded.failures[0].code == "unsupported_type"


def test_a_folder_comes_in_order_and_in_chunks(client: Client, world: World) -> None:
    parts = list(client.embed_folder(world.folder / "images", chunk=5))
    assert [len(p) for p in parts] == [5, 5, 2]
    assert [name for p in parts for name in p.names] == [f"{n}.png" for n in range(12)]
    np.testing.assert_allclose(parts[2].gaussians.mean[1], world.expected(encoded(11))[0], atol=1e-6)


def test_searching_with_images_and_with_gaussians_agrees(client: Client) -> None:
    embedded = client.embed([encoded(3), encoded(4)])
    by_image = client.search([encoded(3), encoded(4)], k=3, distance="expected")
    by_gaussian = client.search(embedded.gaussians, k=3, distance="expected", model_id=embedded.model_id)
    assert [f.neighbours for f in by_image] == [f.neighbours for f in by_gaussian]
    assert by_image[0].neighbours[0].id == "set/3.png"
    only_even = client.search([encoded(3)], k=12, where={"label": "even"})[0].neighbours
    assert {n.label for n in only_even} == {"even"}
    for asked in ([encoded(3)], embedded.gaussians[:1]):
        for where in ("label=even", '{"label": "even"}'):
            assert client.search(asked, k=12, where=where)[0].neighbours == only_even


def test_items_are_added_and_removed(client: Client) -> None:
    assert client.add("from client/ü.png", picture(70), label="x") is False
    assert client.add("from client/ü.png", picture(71), label="x") is True
    assert client.search([picture(71)], k=1)[0].neighbours[0].id == "from client/ü.png"
    client.remove("from client/ü.png")
    with pytest.raises(ServerError) as caught:
        client.remove("from client/ü.png")
    assert (caught.value.status, caught.value.code) == (404, "not_found")


@pytest.mark.parametrize(
    "id_", ["dots/../set/3.png", "../set/3.png", "set/./3.png", "..", ".", "a//b", "..a/%2E"]
)
def test_an_id_with_dots_is_no_other_item(client: Client, id_: str) -> None:
    before = client.search([encoded(3)], k=1, where={"id": "set/3.png"})
    assert client.add(id_, picture(73), label="dots") is False
    assert [n.id for n in client.search([picture(73)], k=1, where="label=dots")[0].neighbours] == [id_]
    client.remove(id_)
    assert client.search([encoded(3)], k=1, where={"id": "set/3.png"}) == before


def test_names_come_back_as_they_are(client: Client, tmp_path: Path) -> None:
    names = ['a "b".png', "a%22b.png", "é\n.png", "a\\b.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded(1))
    assert client.embed([tmp_path / name for name in names]).names == [str(tmp_path / name) for name in names]
    (part,) = client.embed_folder(tmp_path)
    assert sorted(part.names) == sorted(names)
    (tmp_path / names[0]).write_bytes(b"junk")
    _, failed = client.search([tmp_path / names[1], tmp_path / names[0]])
    assert failed.failure is not None
    assert failed.failure.name == str(tmp_path / names[0])


def test_metadata_goes_in_and_comes_back_with_neighbours(client: Client) -> None:
    metadata = {"year": 2024, "colour": "red", "sold": True, "price": 1.5}
    as_arrays = {**metadata, "year": np.int64(2024), "sold": np.True_, "price": np.float32(1.5)}
    client.add("from client/car.png", picture(72), metadata=as_arrays)
    try:
        (found,) = client.search([picture(72)], k=1, where={"year": {">": 2020}, "colour": "red"})
        assert [(n.id, n.metadata) for n in found.neighbours] == [("from client/car.png", metadata)]
        with pytest.raises(ServerError, match="where: no item has 'color'"):
            client.search([picture(72)], where="color=red")
    finally:
        client.remove("from client/car.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "127.0.0.1:3000"}, "url: found '127.0.0.1:3000', expected http://"),
        ({"timeout_s": 0}, "timeout_s: found 0"),
        ({"timeout_s": float("nan")}, "timeout_s: found float nan"),
        ({"retries": -1}, "retries: found -1"),
    ],
)
def test_what_makes_no_connection_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InputError, match=said):
            kind(**{"url": "http://127.0.0.1:3000", **options})


def test_wrong_images_are_refused_before_anything_is_sent(client: Client) -> None:
    for images in ([], ["/nowhere/a.png"], [np.zeros((2, 2), np.float32)], [np.zeros((2, 2, 4), np.uint8)]):
        with pytest.raises(InputError):
            client.embed(images)


def test_the_async_client_answers_the_same(server: Running, world: World) -> None:
    async def ask() -> tuple[np.ndarray, list[str]]:
        async with AsyncClient(server.url) as client:
            names = []
            async for part in client.embed_folder(world.folder / "images", chunk=4, at_once=2):
                names += part.names
            embedded, found = await asyncio.gather(
                client.embed([encoded(1)]), client.search([encoded(3)], k=1)
            )
            assert found[0].neighbours[0].id == "set/3.png"
            return embedded.gaussians.mean, names

    mean, names = asyncio.run(ask())
    np.testing.assert_allclose(mean[0], world.expected(encoded(1))[0], atol=1e-6)
    assert names == [f"{n}.png" for n in range(12)]


def test_busy_answers_are_tried_again_after_the_named_time() -> None:
    full = 429, b'{"error": {"code": "queue_full", "message": "full"}}'
    answers = [full, (200, b'{"model_id": "m"}')]
    asked: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers.pop(0) if answers else full
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}") as client:
                assert client.model() == {"model_id": "m"}
                assert asked == ["/model", "/model"]
                with pytest.raises(ServerError, match="queue_full"):
                    client.model()
            assert len(asked) == 2 + 5
        finally:
            server.shutdown()
            thread.join()
