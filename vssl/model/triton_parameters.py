"""Model id, card and golden pair of each version <-> the `parameters` of a Triton configuration.

A model that runs on a Triton server is not available as a file, so what the file would say of
itself stands in the configuration, which every Triton client can ask for. One configuration
serves all versions of a model: each key ends in the version it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vssl.errors import FormatError
from vssl.model.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.model.golden import Golden

MODEL_ID_KEY = "vssl.model_id"
ADVICE = "write the model repository with: vssl export model.onnx --triton REPOSITORY"


class VersionFacts(NamedTuple):
    """What is known of one version: its model id (sha256 of model.onnx), card and golden pair."""

    model_id: str
    card: ModelCard
    golden: Golden


def to_parameters(version: int, model_id: str, card: str, golden: str) -> dict[str, str]:
    """Return the parameters of one version; card and golden pair as the JSON that the model file holds."""
    values = {MODEL_ID_KEY: model_id, CARD_KEY: card, GOLDEN_KEY: golden}
    return {f"{key}.{version}": value for key, value in values.items()}


def from_parameters(parameters: Mapping[str, str], version: int, source: str) -> VersionFacts:
    """Read one version's facts; raises FormatError, naming `source`, when they are not there."""
    for key, what in ((CARD_KEY, "model card"), (GOLDEN_KEY, "golden pair"), (MODEL_ID_KEY, "model id")):
        if f"{key}.{version}" not in parameters:
            raise FormatError(
                f"{source}: its configuration carries no {what} (parameter {key}.{version}); {ADVICE}"
            )
    try:
        return VersionFacts(
            parameters[f"{MODEL_ID_KEY}.{version}"],
            ModelCard.from_json(parameters[f"{CARD_KEY}.{version}"]),
            Golden.from_json(parameters[f"{GOLDEN_KEY}.{version}"]),
        )
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error
