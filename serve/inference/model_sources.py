"""`[NAME[@VERSION]=]SOURCE`, one a line -> the models that a server serves, the default first.

A source is a file or triton://HOST:PORT/MODEL. Without a name the model is called what its card
says. A file whose own name looks like `a=b` is written with its folder: `./a=b`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vssl.errors import InputError

_NAMED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,127})(?:@(?P<version>[1-9][0-9]{0,8}))?=(?P<source>.+)"
)


@dataclass(frozen=True)
class NamedModel:
    """A model asked for: where it is, what requests call it (the card's name when None), its version."""

    source: str
    name: str | None = None
    version: int = 1

    def __str__(self) -> str:
        return self.source if self.name is None else f"{self.name}@{self.version}={self.source}"


def parse_models(text: str) -> tuple[NamedModel, ...]:
    """Parse one model a line; raises InputError for none, or for two of one name and version."""
    models = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _NAMED.fullmatch(line)
        if found is None:
            models.append(NamedModel(line))
        else:
            models.append(NamedModel(found["source"], found["name"], int(found["version"] or 1)))
    if not models:
        raise InputError(
            "model: found none, expected a file, or NAME=FILE; type: vssl serve --model model.onnx"
        )
    check_distinct([(model.name, model.version) for model in models if model.name is not None])
    return tuple(models)


def check_distinct(names: list[tuple[str, int]]) -> None:
    """Raise InputError when two models would answer to one name and version."""
    for name, version in names:
        if names.count((name, version)) > 1:
            raise InputError(
                f"model: found {name!r} of version {version} twice; tell them apart: --model NAME=FILE, or as versions "
                f"of one name: --model {name}@1=FILE --model {name}@2=FILE"
            )
