"""POST /search: neighbours over HTTP are those of the gallery itself."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from tests.serve.http.conftest import DIM, World, encoded
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.preprocess import load_image

QUERY = encoded(3)
FIELDS = {"id", "label", "distance", "variance_score", "match_probability", "uncertainty", "metadata"}


def direct(world: World, data: bytes, **options: Any) -> list[tuple[str, float, float]]:
    """Search the gallery's files without the server."""
    queries = world.engine.infer(load_image(data, world.engine.card.preprocess)[None]).gaussians
    with FolderGallery.open(world.gallery, read_only=True) as gallery:
        (result,) = gallery.search(queries, **options)
    return [(n.id, n.distance, n.variance_score) for n in result.neighbours]


def test_an_image_finds_itself_first(http: httpx.Client, world: World) -> None:
    body = http.post("/search?k=4", content=QUERY).json()
    assert body["k"] == 4
    (result,) = body["results"]
    assert len(result["neighbours"]) == 4
    assert set(result["neighbours"][0]) == FIELDS
    assert (result["neighbours"][0]["id"], result["neighbours"][0]["label"]) == ("set/3.png", "odd")
    assert result["uncertainty"] == pytest.approx(world.expected(QUERY)[2], abs=1e-6)
    distances = [n["distance"] for n in result["neighbours"]]
    assert distances == sorted(distances)


@pytest.mark.parametrize("distance", ["cosine", "expected", "wasserstein", "mls"])
def test_every_distance_gives_what_the_gallery_gives(http: httpx.Client, world: World, distance: str) -> None:
    data = encoded(99)
    (result,) = http.post("/search", params={"k": 5, "distance": distance}, content=data).json()["results"]
    found = [(n["id"], n["distance"], n["variance_score"]) for n in result["neighbours"]]
    for (got_id, *got), (want_id, *want) in zip(
        found, direct(world, data, k=5, distance=distance), strict=True
    ):
        assert got_id == want_id
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_images_and_their_embeddings_search_alike(http: httpx.Client, world: World) -> None:
    embedded = http.post("/embed", content=QUERY).json()
    vectors = {name: embedded["results"][0][name] for name in ("mean", "variance")}
    asked = {**vectors, "model_id": embedded["model_id"], "k": 3, "distance": "expected"}
    by_vector = http.post("/search", json=asked).json()["results"]
    packed = {"images": [{"base64": base64.b64encode(QUERY).decode()}], "k": 3, "distance": "expected"}
    by_image = http.post("/search", json=packed).json()["results"]
    assert by_vector == by_image
    several = {name: [values, values] for name, values in vectors.items()}
    assert len(http.post("/search", json=several).json()["results"]) == 2


@pytest.mark.parametrize("where", ['{"label": "even"}', "label=even"])
def test_a_filter_is_one_word_in_one_syntax_wherever_it_stands(http: httpx.Client, where: str) -> None:
    in_query = http.post("/search", params={"k": 12, "where": where}, content=QUERY).json()
    in_form = http.post("/search", files={"images": QUERY}, data={"k": "12", "where": where}).json()
    images = [{"base64": base64.b64encode(QUERY).decode()}]
    in_json = http.post("/search", json={"images": images, "k": 12, "where": where}).json()
    as_object = http.post("/search", json={"images": images, "k": 12, "where": {"label": "even"}}).json()
    for body in (in_query, in_form, in_json, as_object):
        (result,) = body["results"]
        assert [n["label"] for n in result["neighbours"]] == ["even"] * 6


def test_a_bound_applies(http: httpx.Client) -> None:
    (result,) = http.post("/search?k=12&max_uncertainty=0", content=QUERY).json()["results"]
    assert result["neighbours"] == []


def test_a_bad_query_keeps_its_place(http: httpx.Client) -> None:
    files = [("images", ("a.png", QUERY)), ("images", ("b.png", b"junk")), ("images", ("c.png", encoded(5)))]
    results = http.post("/search", files=files, data={"k": "1"}).json()["results"]
    assert [r["query"] for r in results] == ["a.png", "b.png", "c.png"]
    assert [r["error"]["code"] if "error" in r else r["neighbours"][0]["id"] for r in results] == [
        "set/3.png",
        "unsupported_type",
        "set/5.png",
    ]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"k": 0}, "k"),
        ({"k": "many"}, "k"),
        ({"k": 2.5}, "k"),
        ({"k": True}, "k"),
        ({"max_uncertainty": "low"}, "max_uncertainty"),
        ({"distance": 3}, "distance"),
        ({"where": "{"}, "where"),
        ({"where": {"label": {"like": "c%"}}}, "where"),
        ({"where": {"colour": "red"}}, "where"),
        ({"where": '{"label": "\\ud800"}'}, "where"),
        ({"where": '{"label": {"in": ["even", "\\ud800"]}}'}, "where"),
        ({"where": '{"label": {"is": "\\udfff"}}'}, "where"),
        ({"where": {"label": 7}}, "where"),
        ({"k": "5"}, "k"),
        ({"k": 1001}, "k"),
        ({"max_uncertainty": True}, "max_uncertainty"),
    ],
)
def test_wrong_options_are_named(http: httpx.Client, options: dict[str, Any], param: str) -> None:
    body = {"mean": [1.0] * DIM, "variance": [0.1] * DIM, **options}
    answer = http.post("/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_null_is_the_default_and_5_0_is_5(http: httpx.Client) -> None:
    body: dict[str, Any] = {"mean": [1.0] * DIM, "variance": [0.1] * DIM}
    nothing = {"k": None, "distance": None, "max_uncertainty": None, "where": None, "model_id": None}
    assert http.post("/search", json=body | nothing).json() == http.post("/search", json=body).json()
    assert http.post("/search", json=body | {"k": 5.0}).json()["k"] == 5


def test_a_name_that_has_no_values_is_known(http: httpx.Client) -> None:
    put = http.put("/gallery/nothing.png", params={"metadata": '{"nothing": null}'}, content=encoded(98))
    assert put.status_code == 201
    try:
        asked = {"k": 1000, "where": '{"nothing": null}'}
        (result,) = http.post("/search", params=asked, content=QUERY).json()["results"]
        assert len(result["neighbours"]) == http.get("/gallery").json()["items"]
        answer = http.post("/search", params={"where": "nothing=1"}, content=QUERY)
        assert "no item has a text there" in answer.json()["error"]["message"]
    finally:
        http.delete("/gallery/nothing.png")


def test_an_unknown_distance_is_refused_with_the_known_ones(http: httpx.Client) -> None:
    answer = http.post("/search?distance=manhattan", content=QUERY)
    assert answer.status_code == 400
    assert "wasserstein" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "vectors",
    [
        {"mean": [1.0], "variance": [1.0]},
        {"mean": [1.0] * DIM},
        {"mean": [1.0] * DIM, "variance": [0.0] * DIM},
        {"mean": ["a"] * DIM, "variance": [1.0] * DIM},
        {"mean": [], "variance": []},
        {"mean": [0.0] * DIM, "variance": [1.0] * DIM},
    ],
)
def test_vectors_that_are_no_gaussian_are_a_400(http: httpx.Client, vectors: dict[str, Any]) -> None:
    assert http.post("/search", json=vectors).status_code == 400


@pytest.mark.parametrize("variance", [1e-50, 1e300])
def test_a_variance_beyond_float32_is_named(http: httpx.Client, variance: float) -> None:
    error = http.post("/search", json={"mean": [1.0] * DIM, "variance": [variance] * DIM}).json()["error"]
    assert error["param"] == "variance"


def test_vectors_of_another_model_are_a_409(http: httpx.Client) -> None:
    body = {"mean": [1.0] * DIM, "variance": [0.1] * DIM, "model_id": "0" * 64}
    answer = http.post("/search", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_mismatch")


def test_results_are_built_from_float32(http: httpx.Client, world: World) -> None:
    mean, variance, _ = world.expected(QUERY)
    gaussians = GaussianEmbedding.from_lists(mean, variance)
    body = {"mean": mean, "variance": variance, "k": 1}
    (result,) = http.post("/search", json=body).json()["results"]
    assert result["uncertainty"] == pytest.approx(float(gaussians.uncertainty[0]), abs=1e-7)


def test_examples_are_left_out_of_what_they_find(http: httpx.Client) -> None:
    item = http.get("/gallery/set/3.png").json()
    body = {"mean": item["mean"], "variance": item["variance"], "k": 5}

    def found(**options: object) -> list[str]:
        answer = http.post("/search", json={**body, **options}).json()["results"][0]
        return [one["id"] for one in answer["neighbours"]]

    near = found()
    assert near[0] == "set/3.png"
    assert found(exclude=["set/3.png"])[:4] == near[1:]
    assert found(exclude=near[:2])[:3] == near[2:]
    labelled = found(exclude=near[:2], where={"label": "even"})
    assert set(labelled) <= {f"set/{n}.png" for n in range(0, 12, 2)} - set(near[:2])
