"""The verbs inspect and verify: any artefact -> its card; is this file sound?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from vssl.cli.output import extras, say, say_json
from vssl.errors import FormatError, InputError


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command("inspect")(inspect)
    app.command("verify")(verify)


def inspect(
    artefact: Annotated[
        Path, typer.Argument(help="Checkpoint, run folder, model.onnx, embeddings or gallery folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what an artefact is: its card, counts and identity."""
    with extras():
        facts = _facts(artefact)
    if as_json:
        say_json(facts)
        return
    _say_facts(facts)


def verify(
    model: Annotated[Path, typer.Argument(help="model.onnx.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Repeat a model's checks on this machine: seal, card, graph, golden pair, batch sizes, variance."""
    with extras():
        from serve.inference.verify import verify_file

        checks = verify_file(model, device=device)
    if as_json:
        say_json({"checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:<12} {check.found}")
    if not checks[-1].passed:
        raise FormatError(f"{model} failed the check of its {checks[-1].name}; do not serve it")


def _facts(path: Path) -> dict[str, Any]:
    if path.is_dir() and (path / "manifest.json").exists() and not (path / "gallery.json").exists():
        from vssl.embeddings import store

        manifest = store.read_manifest(path)
        cards = [card for _, card, _ in store.iter_parts(path)]
        return {"artefact": "embeddings", **manifest, "card": cards[0].to_dict() if cards else None}
    if (path.is_dir() and (path / "checkpoint.pt").exists()) or path.suffix in (".pt", ".pth"):
        from train.state.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(path)
        return {
            "artefact": "checkpoint",
            "step": checkpoint.step,
            "epoch": checkpoint.epoch,
            "preprocess": checkpoint.preprocess.to_dict(),
            **checkpoint.summary,
        }
    if path.is_file() and path.suffix == ".onnx":
        from serve.inference.engine import Engine

        engine = Engine.open(path, device="cpu", check=False)
        return {
            "artefact": "model",
            "model_id": engine.model_id,
            "bytes": path.stat().st_size,
            **engine.card.to_dict(),
        }
    if path.is_dir():
        from index.gallery.gallery import Gallery

        return {"artefact": "gallery", **Gallery.open(path, read_only=True).info()}
    raise InputError(
        f"nothing to inspect at {str(path)!r}; expected a run folder, a checkpoint.pt, a model.onnx, an embeddings "
        "folder or a gallery folder"
    )


def _say_facts(facts: dict[str, Any], indent: str = "") -> None:
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            say(f"{indent}{name}")
            _say_facts(value, indent + "  ")
        elif isinstance(value, list) and len(value) > 6:
            say(f"{indent}{name:<{width}}  {len(value)} entries, {value[0]} ... {value[-1]}")
        else:
            say(f"{indent}{name:<{width}}  {value}")
