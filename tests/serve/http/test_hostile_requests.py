"""What attackers send: a short refusal to each, as a client sees it."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import httpx
import pytest

from tests.serve.http.conftest import World, encoded
from tests.serve.http.raw_requests import PICTURE, TEXT, refused
from tests.serve.running import Running
from tests.support.hostile_pictures import scan_bomb

LONG = "x" * 1_500_000


class TestWhatIsRefusedStaysShort:
    """Nothing that a request repeats, nests or claims makes an answer long or a failure of ours."""

    BODY: dict[str, Any] = {"images": [{"base64": TEXT}]}  # noqa: RUF012

    @pytest.mark.parametrize("name", ["k", "distance", "where", "max_uncertainty", "model", "nonsense"])
    @pytest.mark.parametrize("deep", [100, 1000, 100_000])
    def test_deep_json(self, http: httpx.Client, name: str, deep: int) -> None:
        body = json.dumps(self.BODY)[:-1] + f', "{name}": ' + "[" * deep + "]" * deep + "}"
        answer = http.post("/search", content=body, headers={"Content-Type": "application/json"})
        refused(answer, 404 if answer.status_code == 404 else 400)

    @pytest.mark.parametrize("name", ["model", "input", "dimensions", "encoding_format", "user"])
    def test_deep_json_in_openais_dialect(self, http: httpx.Client, name: str) -> None:
        body = f'{{"input": "data:image/png;base64,{TEXT}", "{name}": ' + "[" * 1000 + "]" * 1000 + "}"
        refused(http.post("/v1/embeddings", content=body))

    @pytest.mark.parametrize(
        "place", ['"inputs": ', '"outputs": ', '"id": ', '"inputs": [{"name": ', '"parameters": ']
    )
    def test_deep_json_in_kserves_dialect(self, http: httpx.Client, place: str) -> None:
        name = http.get("/v1/models").json()["data"][0]["id"]
        refused(http.post(f"/v2/models/{name}/infer", content="{" + place + "[" * 1000 + "]" * 1000 + "}"))

    @pytest.mark.parametrize("name", ["k", "distance", "where", "max_uncertainty", "model", "nonsense"])
    def test_long_texts(self, http: httpx.Client, name: str) -> None:
        answer = http.post("/search", json={**self.BODY, name: LONG[:1_000_000]})
        refused(answer, 404 if name == "model" else 400)

    def test_long_names(self, http: httpx.Client) -> None:
        refused(http.post("/search", json={**self.BODY, LONG[:900_000]: 1}))
        refused(http.post("/v1/embeddings", json={"input": "data:" + LONG[:900_000]}))
        name = http.get("/v1/models").json()["data"][0]["id"]
        tensor = {"name": LONG[:900_000], "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [1]}
        refused(http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}))
        refused(http.get("/gallery/" + "y" * 1000), 404)
        refused(http.post("/v2/models/" + "y" * 5000 + "/infer", json={}), 404)

    @pytest.mark.parametrize(
        "where",
        [
            {"or": [{"label": str(n)} for n in range(1000)]},
            {"and": [{"label": str(n)} for n in range(40_000)]},
            {f"f{n}": 1 for n in range(1000)},
            {"label": {"in": [str(n) for n in range(20_000)]}},
            {"label": ["a", {"b": 1}]},
        ],
    )
    def test_filters_are_bounded(self, http: httpx.Client, where: dict[str, object]) -> None:
        refused(http.post("/search", json={**self.BODY, "where": where}))

    def test_a_filter_of_many_values_is_answered(self, http: httpx.Client) -> None:
        where = {"or": [{"label": ["even", *map(str, range(9000))]}, *[{"label": "odd"}] * 150]}
        assert http.post("/search", json={**self.BODY, "where": where}).status_code == 200

    @pytest.mark.parametrize("length", ["1" * 4301, "9" * 20, "-1", "1e3", "²", "0x1"])
    def test_lengths_that_are_none(self, http: httpx.Client, length: str) -> None:
        name = http.get("/v1/models").json()["data"][0]["id"]
        headers = [(b"Inference-Header-Content-Length", length.encode("latin-1"))]
        refused(http.post(f"/v2/models/{name}/infer", content=b"{}", headers=headers))

    @pytest.mark.parametrize(
        "value", ["9" * 400, "-1", "1e300", '"x"', "[]", "null", "{}", "256", "0.5", "[[[0]]]"]
    )
    def test_numbers_that_are_no_pixels(self, http: httpx.Client, value: str) -> None:
        """A number of 400 digits was found by `benchmarks.fuzz`: it fits no float."""
        name = http.get("/v1/models").json()["data"][0]["id"]
        numbers = ", ".join([value, *["0"] * 767])
        tensor = '"name": "images", "datatype": "UINT8", "shape": [1, 16, 16, 3]'
        body = f'{{"inputs": [{{{tensor}, "data": [{numbers}]}}]}}'
        refused(http.post(f"/v2/models/{name}/infer", content=body))

    @pytest.mark.parametrize("value", ["1,", "{},", "[],", '"",', "[[],1],"])
    def test_json_of_millions_of_values(self, http: httpx.Client, value: str) -> None:
        """Reading them would hold up every other request: a list of 990,000 empty objects took 9 s."""
        name = http.get("/v1/models").json()["data"][0]["id"]
        body = f'{{"images": [{value * (1_900_000 // len(value))}1]}}'
        for path in ("/embed", "/search", "/v1/embeddings", f"/v2/models/{name}/infer"):
            answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
            error = refused(answer)
            if "code" in error:
                assert error["code"] == "too_many_values"
            assert "base64" in error["message"]

    def test_an_output_is_asked_for_once(self, http: httpx.Client) -> None:
        name = http.get("/v1/models").json()["data"][0]["id"]
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [0] * 768}
        body = {"inputs": [tensor], "outputs": [{"name": "mean"}] * 8000}
        assert "twice" in refused(http.post(f"/v2/models/{name}/infer", json=body))["message"]

    def test_labels_are_bounded(self, http: httpx.Client) -> None:
        for answer in (
            http.put("/gallery/l", params={"label": "y" * 1025}, content=PICTURE),
            http.put("/gallery/l", json={**self.BODY, "label": LONG}),
        ):
            assert refused(answer)["param"] == "label"
        assert http.put("/gallery/l", params={"label": "y" * 1024}, content=PICTURE).status_code == 201
        assert http.delete("/gallery/l").status_code == 200

    def test_a_scan_bomb_is_refused(self, http: httpx.Client) -> None:
        assert (
            refused(http.post("/embed", content=scan_bomb(8000, 7992, 8000)), 422)["code"]
            == "too_many_pixels"
        )


class TestGivenTwice:
    @pytest.mark.parametrize(
        ("path", "body", "key"),
        [
            ("/embed", '{"images": [], "images": [{"base64": ""}]}', "images"),
            ("/embed", '{"images": [{"base64": "AAAA", "base64": "AAAA"}]}', "base64"),
            ("/search", '{"mean": [1], "variance": [1], "k": 1, "\\u006b": 2}', "k"),
            ("/search", '{"mean": [1], "variance": [1], "where": {"label": "a", "label": "b"}}', "label"),
            ("/v1/embeddings", '{"model": "a", "input": "b", "model": "c"}', "model"),
        ],
    )
    def test_a_key_of_a_json_body(self, http: httpx.Client, path: str, body: str, key: str) -> None:
        message = refused(http.post(path, content=body, headers={"Content-Type": "application/json"}))
        assert f'the key "{key}" is given twice' in message["message"]

    def test_a_key_of_a_json_value_in_a_query(self, http: httpx.Client) -> None:
        answer = http.put("/gallery/twice", params={"metadata": '{"a": 1, "a": 2}'}, content=encoded(1))
        assert 'the key "a" is given twice' in refused(answer)["message"]
        assert http.get("/gallery/twice").status_code == 404

    def test_a_key_of_a_filter_that_is_a_text(self, http: httpx.Client) -> None:
        for text, key in (('{"label": "a", "label": "b"}', "label"), ('{"id": {"<": "a", "<": "b"}}', "<")):
            for answer in (
                http.post("/search", params={"where": text}, content=encoded(1)),
                http.post("/search", json={"mean": [1.0] * 8, "variance": [1.0] * 8, "where": text}),
            ):
                error = refused(answer)
                assert f"the key {key!r} is given twice" in error["message"]
                assert error["param"] == "where"

    def test_a_parameter_of_a_query(self, http: httpx.Client) -> None:
        assert "k: given twice" in refused(http.post("/search?k=1&k=2", content=encoded(1)))["message"]


class TestWideJson:
    @pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
    def test_other_encodings_are_named(self, http: httpx.Client, charset: str) -> None:
        headers = {"Content-Type": f"application/json; charset={charset}"}
        answer = http.post("/embed", content='{"images": []}'.encode(charset), headers=headers)
        assert "expected UTF-8" in refused(answer)["message"]


class TestHosts:
    @pytest.mark.parametrize(
        ("version", "hosts", "status"), [("1.1", 0, 400), ("1.1", 1, 200), ("1.1", 2, 400), ("1.0", 0, 200)]
    )
    def test_a_request_names_one_host(self, server: Running, version: str, hosts: int, status: int) -> None:
        head = f"GET /livez HTTP/{version}\r\nConnection: close\r\n" + "Host: x\r\n" * hosts + "\r\n"
        address = httpx.URL(server.url)
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            connection.sendall(head.encode())
            assert connection.recv(65536).split()[1] == b"%d" % status


class TestHeads:
    def answered(self, server: Running, head: bytes) -> httpx.Response:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            try:
                for start in range(0, len(head), 1 << 16):
                    connection.sendall(head[start : start + (1 << 16)])
            except OSError:
                pass  # the server has ended it
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return httpx.Response(answer.status, content=answer.read())

    def test_a_head_of_many_lines(self, server: Running) -> None:
        lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100))
        refused(self.answered(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"), 431)

    def test_a_line_that_never_ends(self, server: Running) -> None:
        refused(self.answered(server, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5_000_000), 431)

    def test_what_fits_is_answered(self, server: Running) -> None:
        lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(40))
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n"
        assert self.answered(server, head).status_code == 200

    def test_a_large_body_is_no_head(self, http: httpx.Client) -> None:
        for _ in range(3):  # on one connection
            assert http.post("/embed", content=PICTURE + bytes(1_000_000)).status_code == 200


class TestPlaces:
    def test_no_answer_names_a_place_of_the_server(self, http: httpx.Client, world: World) -> None:
        for path in (
            "/gallery",
            "/model",
            "/v1/models",
            "/v2",
            "/metrics",
            "/openapi.json",
            "/gallery/set/1.png",
        ):
            assert str(world.folder) not in http.get(path).text, path

    def test_a_thumbnail_that_is_not_there_says_why(self, http: httpx.Client) -> None:
        assert http.put("/gallery/sent", content=PICTURE).status_code == 201
        assert "not kept" in refused(http.get("/thumbnails/sent"), 404)["message"]
        assert http.delete("/gallery/sent").status_code == 200
