"""[NAME[@VERSION]=]SOURCE lines <-> the models that are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.inference.model_sources import NamedModel, parse_models
from vssl.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.onnx", NamedModel("model.onnx")),
        ("pets=model.onnx", NamedModel("model.onnx", "pets")),
        ("pets@2=/m/model.onnx", NamedModel("/m/model.onnx", "pets", 2)),
        ("triton://host:8001/pets", NamedModel("triton://host:8001/pets")),
        ("pets=triton://host:8001/cats/3", NamedModel("triton://host:8001/cats/3", "pets")),
        ("./a=b.onnx", NamedModel("./a=b.onnx")),
        ("a=b=c.onnx", NamedModel("b=c.onnx", "a")),
        ("pets@0=m.onnx", NamedModel("pets@0=m.onnx")),
    ],
)
def test_one_model(text: str, expected: NamedModel) -> None:
    assert parse_models(text) == (expected,)


def test_one_a_line_in_their_order() -> None:
    found = parse_models("a.onnx\n\n b=b.onnx \nb@2=c.onnx\n")
    assert found == (NamedModel("a.onnx"), NamedModel("b.onnx", "b"), NamedModel("c.onnx", "b", 2))


@given(
    st.lists(
        st.builds(
            NamedModel,
            source=st.from_regex(r"/[a-zA-Z0-9=@. /-]{0,20}x", fullmatch=True),
            name=st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
            version=st.just(1),
        ),
        min_size=1,
        unique_by=lambda model: model.name or object(),
    )
)
def test_what_is_written_reads_back(models: list[NamedModel]) -> None:
    assert list(parse_models("\n".join(map(str, models)))) == models


@pytest.mark.parametrize("text", ["", " \n "])
def test_no_model_says_what_to_type(text: str) -> None:
    with pytest.raises(InputError, match="vssl serve --model"):
        parse_models(text)


def test_two_of_one_name_and_version_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"found 'a' of version 1 twice.*--model a@1=FILE --model a@2=FILE"):
        parse_models("a=x.onnx\na@1=y.onnx")
