"""A model's card -> config.pbtxt, the configuration of one model in a Triton repository.

The file is written as text and only its own lines are ever changed again, so that what a person
edits in it (instances, delays) survives the next version. Shape letters: S side, D embedding
dimension, F feature dimension.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from vssl.model.batch_sizes import batch_sizes
from vssl.model.card import ModelCard
from vssl.model.triton_parameters import MODEL_ID_KEY, to_parameters

BACKENDS = {"onnxruntime": "KIND_AUTO", "python": "KIND_CPU"}
"""Backend -> where its instances run: the first takes a GPU where Triton sees one."""

QUEUE_DELAY_US = 500
VERSIONS_LOADED = 2  # the newest, and the one before it for clients that have not moved on

_OURS = re.compile(r'^parameters\s*\{\s*key:\s*"vssl\.\w+\.(\d+)".*\}\s*$')
_MODEL_ID = re.compile(
    rf'key:\s*"{re.escape(MODEL_ID_KEY)}\.(\d+)"\s*value:?\s*\{{\s*string_value:\s*"([0-9a-f]{{64}})"'
)
_SHAPE = re.compile(r'name:\s*"(images|mean|variance|features|uncertainty)"[^}]*?dims:\s*\[([^\]]*)\]')
_BACKEND = re.compile(r'^backend:\s*"(\w+)"', re.MULTILINE)


def config_text(name: str, card: ModelCard, backend: str) -> str:
    """Return config.pbtxt without the parameters of any version.

    A preferred batch size of 1 sends a lone image straight on; while an instance is busy
    requests gather, and the largest preferred size that is waiting goes next.
    """
    side, sizes = card.preprocess.size, batch_sizes(card.preprocess.size)
    lines = [
        f"name: {quoted(name)}",
        f"backend: {quoted(backend)}",
        f"max_batch_size: {sizes[-1]}",
        f'input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }} ]',
        "output [",
        ",\n".join(
            f"  {{ name: {quoted(output)} data_type: TYPE_FP32 {_dims(shape)} }}"
            for output, shape in card.output_shapes.items()
        ),
        "]",
        f"version_policy {{ latest {{ num_versions: {VERSIONS_LOADED} }} }}",
        f"instance_group [ {{ count: 1 kind: {BACKENDS[backend]} }} ]",
        "dynamic_batching {",
        f"  preferred_batch_size: [ {', '.join(map(str, sizes))} ]",
        f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
        "}",
        "model_warmup [",
        ",\n".join(_warmup(size, side) for size in sorted({1, sizes[-1]})),
        "]",
    ]
    return "\n".join(lines) + "\n"


def with_version(
    text: str, version: int, model_id: str, card: str, golden: str, keep: Collection[int]
) -> str:
    """Return the configuration with one more version's parameters and without those not in `keep`."""
    lines = []
    for line in text.splitlines():
        ours = _OURS.match(line)
        if ours is None or (int(ours[1]) in keep and int(ours[1]) != version):
            lines.append(line)
    for key, value in to_parameters(version, model_id, card, golden).items():
        lines.append(f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}")
    return "\n".join(lines) + "\n"


def model_ids(text: str) -> dict[int, str]:
    """Return the model id of each version that a configuration of ours names; empty for another's."""
    return {int(version): model_id for version, model_id in _MODEL_ID.findall(text)}


def differences(text: str, card: ModelCard, backend: str) -> list[str]:
    """Return what keeps a model from becoming one more version under a configuration, as phrases."""
    side = card.preprocess.size
    expected = {"images": [side, side, 3]}
    expected |= {name: list(shape or (1,)) for name, shape in card.output_shapes.items()}
    found = {name: [int(n) for n in re.findall(r"-?\d+", dims)] for name, dims in _SHAPE.findall(text)}
    stated = _BACKEND.search(text)
    named = stated[1] if stated else "none"
    return [
        *([f"its backend is {named}, asked for is {backend}"] if named != backend else []),
        *(
            f"its {name} has the shape {found.get(name)}, the model's is {shape}"
            for name, shape in sorted(expected.items())
            if found.get(name) != shape
        ),
        *(f"its {name} is no output of the model" for name in sorted(set(found) - set(expected))),
    ]


def quoted(text: str) -> str:
    """Return ASCII text without line ends as a string of protocol-buffer text format."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dims(shape: tuple[int, ...]) -> str:
    """Return an output's dimensions; Triton writes one number an image as [ 1 ], and the graph has none."""
    return f"dims: [ {', '.join(map(str, shape))} ]" if shape else "dims: [ 1 ] reshape { shape: [ ] }"


def _warmup(size: int, side: int) -> str:
    images = f"data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] zero_data: true"
    return (
        f'  {{ name: "{size} at once" batch_size: {size} inputs {{ key: "images" value {{ {images} }} }} }}'
    )
