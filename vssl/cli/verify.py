"""The verb verify: model.onnx -> is this file sound on this machine?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.options import Device, Json
from vssl.cli.output import say, say_json
from vssl.errors import FormatError


def verify(
    model: Annotated[Path, typer.Argument(help="model.onnx.")],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Repeat a model's checks on this machine: seal, card, graph, golden pair, batch sizes, variance."""
    from serve.inference.verify import verify_file

    checks = verify_file(model, device=device)
    if as_json:
        say_json({"checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:<12} {check.found}")
    if not checks[-1].passed:
        raise FormatError(f"{model} failed the check of its {checks[-1].name}; do not serve it")
