"""The verb inspect: any artefact -> its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vssl.cli.options import Json
from vssl.cli.output import note, say, say_json
from vssl.errors import InputError


def inspect(
    artefact: Annotated[
        Path, typer.Argument(help="Checkpoint, run folder, model.onnx, embeddings or gallery folder.")
    ],
    as_json: Json = False,
) -> None:
    """Print what an artefact is: its card, counts and identity."""
    facts = _facts(artefact)
    if as_json:
        say_json(facts)
        return
    _say_facts(facts)
    for warning in _warnings(facts):
        note(f"vssl: warning: {warning}")


def _warnings(facts: dict[str, Any]) -> list[str]:
    """Return what is wrong with the calibration of the model that these facts are about."""
    from vssl.model.card import Calibration

    card = facts if facts["artefact"] == "model" else facts.get("card")
    if not isinstance(card, dict) or "calibration" not in card:
        return []
    return Calibration(**card["calibration"]).warnings()


def _facts(path: Path) -> dict[str, Any]:
    if path.is_dir() and (path / "manifest.json").exists():
        from vssl.embeddings import store
        from vssl.embeddings.manifest import read_manifest

        manifest = read_manifest(path)
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
        from index.gallery.open import open_gallery

        with open_gallery(path, read_only=True) as gallery:
            return {"artefact": "gallery", **gallery.info()}
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
