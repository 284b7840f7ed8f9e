"""What clients really send, and what attackers do: the right answer to each, as a client sees it."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from typing import Any

import httpx
import pytest

from tests.hostile_pictures import scan_bomb
from tests.serve.http.conftest import World, encoded
from tests.serve.running import Running

PICTURE = encoded(100)
TEXT = base64.b64encode(PICTURE).decode()
LONG = "x" * 1_500_000


def raw(
    server: Running, method: str, path: str, body: bytes = b"", kind: str = "image/png"
) -> httpx.Response:
    """Send a path as it stands: clients normalise theirs."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    head += f"Content-Type: {kind}\r\n\r\n" if kind else "\r\n"
    return exchanged(host, int(port), head.encode() + body)


def exchanged(host: str, port: int, data: bytes) -> httpx.Response:
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(data)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Check a refusal: its status, one error body, short, without a place of this machine; return the error."""
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 1200
    assert "/tmp/" not in answer.text
    error = answer.json()["error"]
    return error if isinstance(error, dict) else {"message": error}


class TestIds:
    def test_a_line_end_belongs_to_the_id(self, http: httpx.Client, server: Running) -> None:
        assert http.put("/gallery/a", content=PICTURE).status_code in (200, 201)
        for method in ("GET", "DELETE"):
            refused(raw(server, method, "/gallery/a%0A"), 404)
        assert raw(server, "PUT", "/gallery/a%0A", encoded(101)).status_code == 201
        assert raw(server, "GET", "/gallery/a%0A").json()["id"] == "a\n"
        before = http.get("/gallery/a").json()
        assert raw(server, "DELETE", "/gallery/a%0A").status_code == 200
        assert http.get("/gallery/a").json() == before
        assert http.delete("/gallery/a").status_code == 200

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    @pytest.mark.parametrize("id_", ["caf%E9", "caf%E8", "%ED%A0%80", "%C0%AF", "%FF"])
    def test_an_id_is_utf8(self, server: Running, method: str, id_: str) -> None:
        assert "UTF-8" in refused(raw(server, method, f"/gallery/{id_}", PICTURE))["message"]
        refused(raw(server, "GET", f"/thumbnails/{id_}"))

    @pytest.mark.parametrize("id_", ["café", "漢/字", "a b", "a\r", "\ta", "%41", "a/", "\ufffd", "x" * 1024])
    def test_every_other_text_is_the_very_id(self, http: httpx.Client, server: Running, id_: str) -> None:
        place = "/gallery/" + "".join(f"%{byte:02X}" for byte in id_.encode())
        assert raw(server, "PUT", place, PICTURE).json()["id"] == id_
        assert raw(server, "GET", place).json()["id"] == id_
        found = http.post("/search", params={"k": 1}, content=PICTURE).json()["results"][0]["neighbours"]
        assert found[0]["distance"] < 1e-3
        assert raw(server, "DELETE", place).json() == {"id": id_, "removed": True}

    def test_what_is_too_long_or_holds_a_zero_byte_is_none(self, server: Running) -> None:
        refused(raw(server, "GET", "/gallery/" + "x" * 1025))
        refused(raw(server, "GET", "/gallery/a%00"))

    def test_a_query_is_utf8_too(self, http: httpx.Client, server: Running) -> None:
        refused(raw(server, "PUT", "/gallery/b?label=caf%E9", PICTURE))
        assert http.get("/gallery/b").status_code == 404


class TestValues:
    @pytest.mark.parametrize("name", ["k", "distance", "where", "max_uncertainty", "model"])
    def test_null_is_the_default(self, http: httpx.Client, name: str) -> None:
        body = {"images": [{"base64": TEXT}]}
        assert (
            http.post("/search", json={**body, name: None}).json() == http.post("/search", json=body).json()
        )

    def test_five_point_nought_is_five(self, http: httpx.Client) -> None:
        body = {"images": [{"base64": TEXT}]}
        found = http.post("/search", json={**body, "k": 5.0}).json()
        assert found == http.post("/search", json={**body, "k": 5}).json()
        refused(http.post("/search", json={**body, "k": 5.5}))

    @pytest.mark.parametrize("name", ["encoding_format", "dimensions", "user"])
    def test_null_is_the_default_in_openais_dialect(self, http: httpx.Client, name: str) -> None:
        body = {
            "model": http.get("/v1/models").json()["data"][0]["id"],
            "input": f"data:image/png;base64,{TEXT}",
        }
        found = http.post("/v1/embeddings", json={**body, name: None})
        assert found.json() == http.post("/v1/embeddings", json=body).json()


NAMED = b'Content-Disposition: form-data; name="images"'


def form(*parts: tuple[bytes, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


def posted(http: httpx.Client, body: bytes, kind: str = "multipart/form-data; boundary=B") -> httpx.Response:
    return http.post("/embed", content=body, headers={"Content-Type": kind})


class TestForms:
    def test_a_field_is_no_place_for_a_picture(self, http: httpx.Client) -> None:
        field = (b'Content-Disposition: form-data; name="model"', b"\xff" * 1_100_000)
        message = refused(posted(http, form((NAMED, PICTURE), field)))["message"]
        assert "'model': found 1100000 bytes, expected a field of at most 1048576" in message

    @pytest.mark.parametrize(
        "head",
        [
            b"; filename*=UTF-8''caf%C3%A9%20a.png",
            b"; filename*=utf-8'en'a.png",
            b"; filename*=nonsense''a.png",
            b"; filename=\"a.png\"; filename*=UTF-8''a.png",
            b"; filename=a.png",
            b'; filename=""',
            b"",
            b"\r\nContent-Type: image/png",
            b'; filename="a.png"\r\ncontent-transfer-encoding: binary',
        ],
    )
    def test_an_image_may_be_named_in_any_way(self, http: httpx.Client, world: World, head: bytes) -> None:
        found = posted(http, form((NAMED + head, PICTURE)))
        assert found.json()["results"][0]["mean"] == pytest.approx(world.expected(PICTURE)[0], rel=1e-4)

    def test_names_come_back_decoded(self, http: httpx.Client) -> None:
        heads = (b"; filename*=UTF-8''caf%C3%A9.png", b'; filename="b.png"')
        found = posted(http, form(*((NAMED + head, PICTURE) for head in heads))).json()["results"]
        assert [item.get("name") for item in found] == ["café.png", "b.png"]

    def test_base64_parts_are_decoded(self, http: httpx.Client) -> None:
        head = NAMED + b'; filename="a"\r\nContent-Transfer-Encoding: BASE64'
        assert posted(http, form((head, base64.encodebytes(PICTURE)))).status_code == 200
        odd = NAMED + b'; filename="a"\r\nContent-Transfer-Encoding: quoted-printable'
        assert "content-transfer-encoding" in refused(posted(http, form((odd, PICTURE))))["message"]

    def test_wherever_it_is_cut_it_is_refused(self, http: httpx.Client) -> None:
        whole = form((NAMED + b'; filename="a"', PICTURE), (NAMED + b'; filename="b"', encoded(101)))
        assert len(posted(http, whole).json()["results"]) == 2
        second = whole.index(b"--B", 10)
        last = whole.rindex(b"--B--")
        for end in (10, 80, second - 5, second + 3, second + 60, len(whole) // 2, last - 30, last, last + 3):
            refused(posted(http, whole[:end]))

    def test_a_closing_boundary_needs_no_line_end(self, http: httpx.Client) -> None:
        assert posted(http, form((NAMED, PICTURE), end=b"--B--")).status_code == 200
        assert posted(http, form((NAMED, PICTURE), end=b"--B--\r\nepilogue")).status_code == 200

    @pytest.mark.parametrize("charset", ["undefined", "idna", "x" * 500, "utf-16", "base64", "\u00e9"])
    def test_a_hostile_charset_changes_nothing(self, http: httpx.Client, charset: str) -> None:
        kind = f"multipart/form-data; boundary=B; charset={charset}".encode("latin-1")
        headers = [(b"Content-Type", kind)]
        assert http.post("/embed", content=form((NAMED, PICTURE)), headers=headers).status_code == 200
        found = http.post(
            "/embed",
            content=json.dumps({"images": [{"base64": TEXT}]}),
            headers=[(b"Content-Type", b"application/json; " + kind)],
        )
        assert found.status_code == 200

    @pytest.mark.parametrize(
        "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=C"]
    )
    def test_another_boundary_is_refused(self, http: httpx.Client, kind: str) -> None:
        refused(posted(http, form((NAMED, PICTURE)), kind))

    def test_fields_and_heads_are_bounded(self, http: httpx.Client) -> None:
        field = b'Content-Disposition: form-data; name="f"'
        refused(posted(http, form(*[(field, b"1")] * 5000)))
        refused(posted(http, form((NAMED + b'; filename="' + b"a" * 100_000 + b'"', PICTURE))))
        assert refused(posted(http, form(*[(NAMED, PICTURE)] * 17)))["code"] == "too_many_items"


class TestBase64:
    def given(self, http: httpx.Client, text: str) -> list[httpx.Response]:
        uri = f"data:image/png;base64,{text}"
        return [
            http.post("/embed", json={"images": [{"base64": text}]}),
            http.post("/embed", json={"images": [{"url": uri}]}),
            http.post("/v1/embeddings", json={"input": uri}),
        ]

    @pytest.mark.parametrize(
        "text", [base64.encodebytes(PICTURE).decode(), f" {TEXT}\r\n", f"{TEXT[:9]}\t{TEXT[9:]}"]
    )
    def test_white_space_is_passed_over(self, http: httpx.Client, text: str) -> None:
        assert {answer.status_code for answer in self.given(http, text)} == {200}

    def test_a_data_uri_may_be_percent_encoded(self, http: httpx.Client) -> None:
        uri = "data:image/png;base64," + TEXT.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        assert http.post("/v1/embeddings", json={"input": uri}).status_code == 200

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (base64.urlsafe_b64encode(b"\xff\xfe\xfd" * 20).decode(), "URL-safe"),
            (TEXT.rstrip("=")[:-1], "multiple of 4"),
            ("@" + TEXT, "'@'"),
            ("é" * 10, "'é'"),
            ("AA=A", "="),
        ],
    )
    def test_what_is_not_taken_is_named(self, http: httpx.Client, text: str, said: str) -> None:
        for answer in self.given(http, text):
            assert said in refused(answer)["message"]


class TestContentTypes:
    @pytest.mark.parametrize(
        "kind",
        ["application/x-www-form-urlencoded", "text/plain", "application/octet-stream", "text/json", ""],
    )
    @pytest.mark.parametrize("start", ["", "\ufeff", " \r\n"])
    def test_json_is_read_whatever_it_is_called(self, server: Running, kind: str, start: str) -> None:
        body = (start + json.dumps({"images": [{"base64": TEXT}]})).encode()
        for path in ("/embed", "/search"):
            assert raw(server, "POST", path, body, kind).status_code == 200
        uri = (start + json.dumps({"input": f"data:image/png;base64,{TEXT}"})).encode()
        assert raw(server, "POST", "/v1/embeddings", uri, kind).status_code == 200

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
    def test_so_is_an_image(self, server: Running, kind: str) -> None:
        assert raw(server, "POST", "/embed", PICTURE, kind).status_code == 200


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
