"""Validation: what fits becomes a value, what does not is a 400 that names the place, the find and the remedy."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Discriminator, Field, RootModel, Tag
from typing_extensions import TypeAliasType

from serve.http.errors import RequestError
from serve.http.io.validation import Lenient, Strict, from_json, from_text, with_param
from vssl.errors import InputError, MismatchError

Sizes = TypeAliasType("Sizes", list[Annotated[int, Field(ge=1)]])


class Wheel(Strict):
    spokes: int


class Options(Strict):
    k: int | None = None
    colour: str | None = None
    where: str | None = None


class Bicycle(Options):
    wheels: list[Wheel]
    sizes: Sizes | list[Sizes] | None = None
    price: str | int | float | bool | None = None


class Tandem(Options):
    seats: int


def kind(body: Any) -> str:
    return "<tandem>" if isinstance(body, dict) and "seats" in body else "<bicycle>"


class Either(
    RootModel[
        Annotated[
            Annotated[Bicycle, Tag("<bicycle>")] | Annotated[Tandem, Tag("<tandem>")], Discriminator(kind)
        ]
    ]
):
    pass


class Open(Lenient):
    k: int | None = None


def refusal(body: str, model: Any = Bicycle) -> tuple[str | None, str]:
    with pytest.raises(RequestError) as caught:
        from_json(model, body.encode())
    assert caught.value.status == 400
    return caught.value.param, str(caught.value)


def test_what_fits_becomes_a_value() -> None:
    found = from_json(
        Bicycle, b'{"wheels": [{"spokes": 32}], "k": null, "sizes": [[1], [2, 3]], "price": 2.5}'
    )
    assert found == Bicycle(wheels=[Wheel(spokes=32)], k=None, sizes=[[1], [2, 3]], price=2.5)
    assert from_text(Options, [("k", "5"), ("colour", "red")]) == Options(k=5, colour="red")


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ("[]", "wheels", "the body: found [], expected an object"),
        ("{}", "wheels", "wheels: missing; the parameters are colour, k, price, sizes, wheels, where"),
        ('{"wheels": {}}', "wheels", "wheels: found {}, expected a valid array"),
        (
            '{"wheels": [{"spokes": "many"}]}',
            "wheels",
            "wheels[0].spokes: found 'many', expected a valid integer",
        ),
        (
            '{"wheels": [{"spokes": true}]}',
            "wheels",
            "wheels[0].spokes: found True, expected a valid integer",
        ),
        ('{"wheels": [], "k": "5"}', "k", "k: found '5', expected a valid integer"),
        (
            '{"wheels": [], "sizes": [[1, 0]]}',
            "sizes",
            "sizes[0][1]: found 0, expected greater than or equal to 1",
        ),
        (
            '{"wheels": [], "price": {}}',
            "price",
            "price: found {}, expected a valid string or a valid integer or a valid number or a valid boolean",
        ),
        ('{"wheels": [], "price": NaN}', "price", "price: found nan, expected "),
        ('{"wheels": [', None, "the body is not JSON: EOF while parsing"),
        ('{"wheels": ' + "[" * 10_000, None, "the body is not JSON: recursion limit exceeded"),
        (
            '{"wheels": [], "colour": "' + "x" * 10_000 + '", "k": 1.5}',
            "k",
            "k: found 1.5, expected a valid integer",
        ),
    ],
)
def test_an_error_names_the_place_the_value_and_what_was_expected(
    body: str, param: str | None, told: str
) -> None:
    found, message = refusal(body)
    assert found == param
    assert message.startswith(told)


def test_a_long_find_is_cut_short() -> None:
    _, message = refusal('{"wheels": "' + "x" * 100_000 + '"}')
    assert len(message) < 200


@pytest.mark.parametrize(
    ("body", "param", "nearest", "known"),
    [
        ('{"wheels": [], "K": 1}', "K", "'k'", "colour, k, price, sizes, wheels, where"),
        ('{"wheels": [], "color": "red"}', "color", "'colour'", "colour, k"),
        ('{"wheel": []}', "wheel", "'wheels'", "colour, k"),
        ('{"wheels": [], "filter": "x"}', "filter", "'where'", "colour, k"),
        ('{"wheels": [{"spoke": 1}]}', "wheels", "'spokes'", "spokes"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all(
    body: str, param: str, nearest: str, known: str
) -> None:
    found, message = refusal(body)
    assert found == param
    assert f"unknown; did you mean {nearest}? the parameters are {known}" in message


def test_a_dialect_passes_over_what_it_does_not_know() -> None:
    assert from_json(Open, b'{"k": 1, "K": 2}') == from_text(Open, [("k", "1"), ("x", "y"), ("x", "z")])


def test_members_of_a_union_do_not_go_together() -> None:
    assert from_json(Either, b'{"seats": 2}').root == Tandem(seats=2)
    param, message = refusal('{"seats": 2, "wheels": []}', Either)
    assert (param, message) == ("wheels", "wheels: does not go together with what else was sent")


def test_a_text_given_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="k: given twice") as caught:
        from_text(Options, [("k", "1"), ("k", "2")])
    assert caught.value.param == "k"


def test_query_and_body_are_one_and_may_not_both_say_it() -> None:
    body = Bicycle(wheels=[], colour="red")
    assert Options(k=3).merged(body) == Options(k=3, colour="red")
    assert Options(k=3).merged(Bicycle(wheels=[])) == Options(k=3)
    with pytest.raises(RequestError, match="colour: given in the query and in the body") as caught:
        Options(colour="red").merged(body)
    assert caught.value.param == "colour"


def test_the_gallerys_errors_name_their_parameter_too() -> None:
    error = with_param(InputError("where: no item has 'colour'"))
    assert (error.status, error.param) == (400, "where")
    assert with_param(InputError("no such thing: x")).param is None
    assert with_param(MismatchError("the queries are of model a")).status == 409
