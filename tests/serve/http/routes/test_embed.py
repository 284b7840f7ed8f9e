"""POST /embed: every form in, every form out, one answer or one error per image."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import subprocess
import zlib

import httpx
import numpy as np
import pyarrow as pa
import pytest

from tests.serve.http.conftest import DIM, World, encoded
from tests.serve.running import Running
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.model.card import CARD_KEY, ModelCard

GOOD = encoded(1)
CORRUPT = encoded(1)[:200] + b"\x00" * 400


def as_json(*images: bytes) -> dict[str, object]:
    return {"images": [{"base64": base64.b64encode(data).decode()} for data in images]}


def float32(values: object) -> np.ndarray:
    return np.asarray(values, np.float64).astype(np.float32)


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/jpeg", "application/octet-stream", None, "nonsense"]
)
def test_a_raw_image_is_embedded_whatever_it_is_declared_as(
    http: httpx.Client, world: World, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = http.post("/embed", content=GOOD, headers=headers)
    assert answer.status_code == 200
    body = answer.json()
    assert body["model_id"] == world.engine.model_id
    assert body["dim"] == DIM
    (result,) = body["results"]
    mean, variance, uncertainty = world.expected(GOOD)
    np.testing.assert_allclose(result["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(result["variance"], variance, atol=1e-6)
    assert result["uncertainty"] == pytest.approx(uncertainty, abs=1e-6)


def test_curl_gets_the_same_numbers(server: Running, world: World) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        [curl, "-sS", "--data-binary", "@-", f"{server.url}/embed"],
        input=GOOD,
        capture_output=True,
        check=True,
    )
    (result,) = json.loads(done.stdout)["results"]
    np.testing.assert_allclose(result["mean"], world.expected(GOOD)[0], atol=1e-6)


def test_multipart_and_json_carry_several_images_in_order(http: httpx.Client, world: World) -> None:
    data = [encoded(n, form) for n, form in ((3, "PNG"), (4, "JPEG"), (5, "WEBP"))]
    files = [("images", (f"{n}.bin", d)) for n, d in enumerate(data)]
    for answer in (http.post("/embed", files=files), http.post("/embed", json=as_json(*data))):
        assert answer.status_code == 200
        results = answer.json()["results"]
        for result, image in zip(results, data, strict=True):
            np.testing.assert_allclose(result["mean"], world.expected(image)[0], atol=1e-6)
    named = http.post("/embed", files=files).json()["results"]
    assert [r["name"] for r in named] == ["0.bin", "1.bin", "2.bin"]


def test_a_data_uri_is_base64_too(http: httpx.Client, world: World) -> None:
    uri = "data:image/png;base64," + base64.b64encode(GOOD).decode()
    (result,) = http.post("/embed", json={"images": [{"base64": uri}]}).json()["results"]
    np.testing.assert_allclose(result["mean"], world.expected(GOOD)[0], atol=1e-6)


def test_json_floats_read_back_to_the_very_float32(http: httpx.Client) -> None:
    (plain,) = http.post("/embed", content=GOOD).json()["results"]
    (packed,) = http.post("/embed?encoding_format=base64", content=GOOD).json()["results"]
    for name in ("mean", "variance"):
        exact = np.frombuffer(base64.b64decode(packed[name]), "<f4")
        np.testing.assert_array_equal(float32(plain[name]), exact)


def test_base64_may_be_asked_for_in_the_body(http: httpx.Client) -> None:
    (result,) = http.post("/embed", json={**as_json(GOOD), "encoding_format": "base64"}).json()["results"]
    assert isinstance(result["mean"], str)


def test_arrow_and_npz_hold_the_same_numbers(http: httpx.Client, world: World) -> None:
    data = [encoded(6), CORRUPT, encoded(7)]
    results = http.post("/embed", json=as_json(*data)).json()["results"]
    stream = http.post(
        "/embed", json=as_json(*data), headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    assert stream.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(stream.content).read_all()
    assert table.column("error_code").to_pylist() == [None, "undecodable", None]
    assert table.column("mean").to_pylist()[1] is None
    for row in (0, 2):
        np.testing.assert_array_equal(
            float32(results[row]["mean"]), float32(table.column("mean").to_pylist()[row])
        )
        np.testing.assert_array_equal(
            float32(results[row]["variance"]), float32(table.column("variance").to_pylist()[row])
        )
    metadata = table.schema.metadata
    assert metadata[MODEL_ID_KEY.encode()].decode() == world.engine.model_id
    assert ModelCard.from_json(metadata[CARD_KEY.encode()].decode()) == world.engine.card

    packed = http.post("/embed", json=as_json(*data), headers={"Accept": "application/x-npz"})
    arrays = np.load(io.BytesIO(packed.content), allow_pickle=False)
    assert arrays["error"].tolist() == ["", "undecodable", ""]
    assert np.isnan(arrays["mean"][1]).all()
    np.testing.assert_array_equal(arrays["mean"][[0, 2]], [float32(results[i]["mean"]) for i in (0, 2)])
    assert str(arrays["model_id"]) == world.engine.model_id


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty"),
        (b"just text", 415, "unsupported_type"),
        (CORRUPT, 422, "undecodable"),
        (GOOD[:60], 422, "undecodable"),
    ],
)
def test_a_lone_bad_image_answers_its_own_status(
    http: httpx.Client, data: bytes, status: int, code: str
) -> None:
    answer = http.post("/embed", content=data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"code", "message", "type", "param"}


def test_a_bad_image_harms_no_neighbour(http: httpx.Client, world: World) -> None:
    answer = http.post(
        "/embed", json={"images": [*as_json(GOOD, CORRUPT, b"", GOOD)["images"], {"base64": "%%"}]}
    )  # type: ignore[misc]
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r.get("error", {}).get("code") for r in results] == [
        None, "undecodable", "empty", None, "unreadable",
    ]  # fmt: skip
    for row in (0, 3):
        np.testing.assert_allclose(results[row]["mean"], world.expected(GOOD)[0], atol=1e-6)


def test_an_answer_does_not_depend_on_its_batch_mates(http: httpx.Client) -> None:
    alone = http.post("/embed", content=GOOD).json()["results"][0]
    together = http.post("/embed", json=as_json(*[encoded(n) for n in range(15)], GOOD)).json()["results"][15]
    np.testing.assert_allclose(alone["mean"], together["mean"], atol=1e-5)
    np.testing.assert_allclose(alone["variance"], together["variance"], rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "images"),
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": "x"}, "images"),
        ({"images": [7]}, "images"),
        ({"images": [{"name": "a"}]}, "images"),
        ({**as_json(GOOD), "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_a_malformed_request_names_its_parameter(http: httpx.Client, body: object, param: str) -> None:
    answer = http.post("/embed", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("body", [b"{", b'{"images": [' + b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_a_400(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_bytes_and_items_are_bounded(http: httpx.Client) -> None:
    large = http.post("/embed", content=b"x" * 2_000_001)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_many_bytes")

    def slices() -> object:
        for _ in range(300):
            yield b"x" * 10_000

    streamed = http.post("/embed", content=slices())  # type: ignore[arg-type]
    assert streamed.status_code == 413
    many = http.post("/embed", json=as_json(*[GOOD] * 17))
    assert (many.status_code, many.json()["error"]["code"]) == (400, "too_many_items")
    files = [("images", ("a.png", GOOD))] * 17
    assert http.post("/embed", files=files).json()["error"]["code"] == "too_many_items"


def test_a_bomb_is_refused_from_its_header(http: httpx.Client) -> None:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    pixels = zlib.compress(bytes(1000))
    bomb += (
        struct.pack(">I", len(pixels)) + b"IDAT" + pixels + struct.pack(">I", zlib.crc32(b"IDAT" + pixels))
    )
    answer = http.post("/embed", content=bomb)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_many_pixels")


def test_unknown_routes_and_methods_use_the_same_error_body(http: httpx.Client) -> None:
    for answer, status in (
        (http.get("/nowhere"), 404),
        (http.get("/embed"), 405),
        (http.delete("/model"), 405),
    ):
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message", "type", "param"}


def test_the_request_id_is_taken_over_and_timings_are_given(http: httpx.Client) -> None:
    answer = http.post("/embed", content=GOOD, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    stages = {part.split(";")[0] for part in answer.headers["server-timing"].split(", ")}
    assert stages == {"read", "decode", "queue", "inference", "serialise", "total"}
    odd = http.post("/embed", content=GOOD, headers={"X-Request-ID": "a b"})
    assert len(odd.headers["x-request-id"]) == 32
