"""What a client sends -> a checked value of a typed model, or the 400 that names what is wrong."""

from __future__ import annotations

import difflib
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeVar, get_args

import jiter
from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypeAliasType

from serve.http.errors import RequestError, invalid
from vssl.errors import InputError, shown

M = TypeVar("M", bound=BaseModel)
Location = Sequence[str | int]
RENAMED = {"filter": "where"}
"""Earlier names of parameters, for clients that still send them."""
EXPECTED = "Input should be "
OBJECTS = ("model_type", "dict_type", "model_attributes_type")
"""Types of pydantic's errors where it expected what JSON calls an object."""
SCALARS = ("str", "int", "float", "bool")
"""How pydantic calls members of a union in a location."""
MOST = {
    "commas": (b",", 400_000),
    "lists": (b"[", 60_000),
    "objects": (b"{", 30_000),
    "texts": (b'"', 60_000),
    "escapes": (b"\\", 2_000_000),
}
"""Marks of one JSON body: while it is read no other thread runs, up to 0.1 s for so many."""
UNCOUNTED = 128 * 1024  # bytes that hold too few marks to matter, and are counted no faster than read
AT_ONCE = 2**20  # bytes that are counted before another thread may run
WIDE_STARTS = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"\0\0\0{")
"""How JSON in UTF-16 and UTF-32 begins, with a byte order mark and without."""


class Strict(BaseModel):
    """What one of our own routes takes: a name that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def merged(self, body: BaseModel | None) -> Self:
        """Return the query's parameters together with those that the body gives.

        Raises RequestError 400 for one that both give.
        """
        if body is None:
            return self
        given = body.model_fields_set & set(type(self).model_fields)
        twice = sorted(given & self.model_fields_set)
        if twice:
            raise invalid(f"{twice[0]}: given in the query and in the body; expected it once", twice[0])
        return self.model_copy(update={name: getattr(body, name) for name in given}) if given else self


class Lenient(BaseModel):
    """What a dialect's route takes: what its clients send beyond is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text; raises ValueError with what is wrong, also for a key that is given twice."""
    if text.startswith(WIDE_STARTS):
        raise ValueError("it is UTF-16 or UTF-32, expected UTF-8")
    try:
        return jiter.from_json(text.removeprefix(BOM_UTF8), catch_duplicate_keys=True)
    except ValueError as error:
        found = re.match('Detected duplicate key ("(?:.*)") at (.*)', str(error), re.DOTALL)
        raise ValueError(f"the key {found[1]} is given twice, {found[2]}" if found else str(error)) from None


def from_json(model: type[M], body: bytes) -> M:
    """Return the value of a JSON body.

    Raises RequestError 400 that names what does not fit, and for more values than MOST.
    """
    for name, (mark, most) in MOST.items() if len(body) > UNCOUNTED else ():
        if _holds_more(body, mark, most):
            raise RequestError(
                400,
                "too_many_values",
                f"found over {most} {mark.decode()} in the JSON, expected at most so many ({name}); send fewer, "
                "pictures as base64, tensors as binary data",
            )
    try:
        value = parse_json(body)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, model) from None


def _holds_more(body: bytes, mark: bytes, most: int) -> bool:
    found = 0
    for start in range(0, len(body), AT_ONCE):  # between two of them other threads may run
        found += body.count(mark, start, start + AT_ONCE)
        if found > most:
            return True
    return False


def from_text(model: type[M], pairs: Iterable[tuple[str, str]]) -> M:
    """Return the value of a query's or a form's pairs, in which numbers are texts.

    Raises RequestError 400 that names what does not fit, or what is given twice.
    """
    values: dict[str, str] = {}
    for name, text in pairs:
        if name in values and name in model.model_fields:
            raise invalid(f"{name}: given twice; expected it once", name)
        values[name] = text
    try:
        return model.model_validate(values, strict=False)
    except ValidationError as error:
        raise _refusal(error, model) from None


def with_param(error: InputError) -> RequestError:
    """Return an error of the gallery's as the 400 of the parameter that its message begins with."""
    param = str(error).partition(":")[0]
    return RequestError(error.status, error.code, str(error), param=param if param.isidentifier() else None)


def _refusal(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """Return the 400 of the error that says most: an unknown name, else the one that lies deepest."""
    errors = error.errors(include_url=False)
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    found = unknown[0] if unknown else max(errors, key=lambda e: len(e["loc"]))
    places = _places(found["loc"])
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in places).removeprefix(".")
    required = (name for m in _models(model) for name, field in m.model_fields.items() if field.is_required())
    param = str(places[0]) if places else next(required, None)
    return invalid(f"{path or 'the body'}: {_message(found, errors, model)}", param)


def _places(location: Location) -> list[str | int]:
    """Return the parts of a location that are in what was sent: others name the member of a union."""
    inner = location[:-1] if location and location[-1] in SCALARS else location
    return [part for part in inner if isinstance(part, int) or not {"[", "<"} & set(part)]


def _message(found: Any, errors: Sequence[Any], model: type[BaseModel]) -> str:
    """Return what is wrong with one place, without its name."""
    text: str = found["msg"]
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    if found["type"] in ("missing", "extra_forbidden"):
        name, known = str(found["loc"][-1]), _known(model, found["loc"])
        names = f"the parameters are {', '.join(known)}" if known else "this takes no parameters"
        if found["type"] == "missing":
            return f"missing; {names}"
        if name in known:
            return "does not go together with what else was sent"
        nearest = RENAMED.get(name) or next(iter(difflib.get_close_matches(name.lower(), known, 1, 0)), None)
        return f"unknown; did you mean {nearest!r}? {names}" if nearest in known else f"unknown; {names}"
    if text.startswith(EXPECTED):
        alike = [
            e for e in errors if len(e["loc"]) == len(found["loc"]) and e["loc"][:-1] == found["loc"][:-1]
        ]
        told = alike if found["loc"] and found["loc"][-1] in SCALARS else [found]
        texts = ["an object" if e["type"] in OBJECTS else e["msg"].removeprefix(EXPECTED) for e in told]
        expected = " or ".join(dict.fromkeys(texts)).replace("valid list", "valid array")
        return f"found {shown(found['input'])}, expected {expected}"
    return text[:1].lower() + text[1:]


def _known(model: type[BaseModel], location: Location) -> list[str]:
    """Return the names that are known at a place in a model: the siblings of the last part of its location."""
    models = _models(model)
    for part in location[:-1]:
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [m for annotation in inner for m in _models(annotation)] if inner else models
    return sorted({name for m in models for name in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation: itself, or members of unions and lists."""
    if isinstance(annotation, TypeAliasType):
        return _models(annotation.__value__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        root = annotation.model_fields.get("root")
        return [annotation] if root is None else _models(root.annotation)
    return [model for part in get_args(annotation) for model in _models(part)]
