"""What clients really send: the right answer to each, as a client sees it."""

from __future__ import annotations

import base64
import json

import httpx
import pytest

from tests.serve.http.conftest import World, encoded
from tests.serve.http.raw_requests import PICTURE, TEXT, raw, refused
from tests.serve.running import Running


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

    def test_both_hold_in_every_body(self, http: httpx.Client) -> None:
        gaussian = {"mean": [1.0] * 8, "variance": [0.1] * 8}
        found = http.post("/search", json={**gaussian, "exclude": None})
        assert found.json() == http.post("/search", json=gaussian).json()
        assert http.put("/gallery/null", content=PICTURE).status_code == 201
        tag = {"ids": ["null"], "tag": "null", "present": None}
        assert http.post("/tags", json=tag).json() == {"changed": 1}
        assert http.get("/gallery/null").json()["metadata"] == {"tag.null": True}
        assert http.delete("/gallery/null").status_code == 200
        generation = float(http.get("/columns").json()["generation"])
        body = {"rows": [0.0, 2.0], "generation": generation, "format": "json"}
        assert [one["id"] for one in http.post("/exports", json=body).json()] == ["set/0.png", "set/2.png"]
        assert refused(http.post("/exports", json={**body, "rows": [0, 0.5]}))["param"] == "rows"
        name = http.get("/v1/models").json()["data"][0]["id"]
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1.0, 16.0, 16.0, 3.0], "data": [0] * 768}
        assert http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}).status_code == 200

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

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b'; filename="where.txt"',
            b"\r\nContent-Transfer-Encoding: base64",
            b"; filename*=UTF-8''where",
        ],
    )
    def test_a_parameter_counts_however_it_was_attached(self, http: httpx.Client, head: bytes) -> None:
        value = base64.b64encode(b"label=even") if b"base64" in head else b"label=even"
        field = b'Content-Disposition: form-data; name="where"' + head, value
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        answer = http.post("/search?k=12", content=form((NAMED, PICTURE), field), headers=headers)
        (result,) = answer.json()["results"]
        assert [one["label"] for one in result["neighbours"]] == ["even"] * 6

    def test_a_field_is_utf8(self, http: httpx.Client) -> None:
        field = b'Content-Disposition: form-data; name="label"', b"caf\xe9"
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        answer = http.put("/gallery/field", content=form((NAMED, PICTURE), field), headers=headers)
        assert "'label': found bytes that are not UTF-8" in refused(answer)["message"]
        assert http.get("/gallery/field").status_code == 404

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

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/vnd.api+json", ""])
    def test_so_are_gaussians(self, http: httpx.Client, server: Running, kind: str) -> None:
        body = {"mean": [1.0] * 8, "variance": [0.1] * 8, "k": 3, "exclude": ["set/1.png"]}
        found = raw(server, "POST", "/search", json.dumps(body).encode(), kind)
        assert found.json() == http.post("/search", json=body).json()

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
    def test_so_is_an_image(self, server: Running, kind: str) -> None:
        assert raw(server, "POST", "/embed", PICTURE, kind).status_code == 200
