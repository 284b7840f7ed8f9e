"""/v2: the KServe v2 (Open Inference Protocol) dialect for the graph itself, binary tensors included.

Input `images` uint8 (N, S, S, 3), already at the card's size; outputs mean, variance (N, D) and
features (N, F) float32. Rows join the same batches as every other request. Errors have the
protocol's own form {"error": "message"}. Shape letters: N images, S side, D and F dimensions.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from starlette.responses import Response

from serve.http.batching.served import Served
from serve.http.errors import RequestError, invalid
from serve.http.io.answers import dumps, json_response
from serve.http.io.body import parse_json, too_many
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import count, note_stage
from serve.http.state import Runtime
from serve.inference.engine import EmbeddedImage
from vssl import __version__
from vssl.embeddings.gaussian import Floats
from vssl.images.preprocess import Pixels

HEADER_LENGTH = "inference-header-content-length"
OUTPUTS = ("mean", "variance", "features")


async def server_metadata(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v2."""
    return json_response({"name": "vssl", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v2/health/live."""
    return json_response({"live": True})


async def ready(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v2/health/ready."""
    await runtime.check_ready()
    return json_response({"ready": True})


async def model_ready(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v2/models/{model}/ready."""
    served = _named(runtime, context)
    await runtime.check_ready(served)
    return json_response({"name": served.name, "ready": True})


async def model_metadata(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v2/models/{model}."""
    served = _named(runtime, context)
    card = served.engine.card
    size, widths = card.preprocess.size, _widths(served)
    return json_response(
        {
            "name": served.name,
            "versions": sorted(str(s.version) for s in runtime.lineup if s.name == served.name),
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, size, size, 3]}],
            "outputs": [{"name": n, "datatype": "FP32", "shape": [-1, widths[n]]} for n in OUTPUTS],
        }
    )


async def infer(runtime: Runtime, context: RequestContext) -> Response:
    """Answer POST /v2/models/{model}/infer."""
    _named(runtime, context)  # an unknown model costs no body
    begun = time.perf_counter()
    body = await runtime.bodies.read(context)
    served = _named(runtime, context)  # after the wait: it may have been replaced meanwhile
    header, binary = _split(body, context.request.headers.get(HEADER_LENGTH))
    images = _images(runtime, served, header, binary)
    wanted = _wanted(header)
    note_stage(runtime, context, "read", time.perf_counter() - begun)
    embedded = await served.batcher.embed(list(images))
    context.timings.update(embedded.timings)
    count(runtime, embedded.answers)
    rows = []
    for index, answer in enumerate(embedded.answers):
        if not isinstance(answer, EmbeddedImage):
            raise RequestError(answer.status, answer.code, f"images[{index}]: {answer}")
        rows.append(answer)
    begun = time.perf_counter()
    response = _render(served, header, rows, wanted)
    note_stage(runtime, context, "serialise", time.perf_counter() - begun)
    return response


def _named(runtime: Runtime, context: RequestContext) -> Served:
    """Return the model and version of the path; raises RequestError 404."""
    return runtime.find(context.request.path_params["model"], context.request.path_params.get("version"))


def _widths(served: Served) -> dict[str, int]:
    card = served.engine.card
    return {"mean": card.dim, "variance": card.dim, "features": card.feature_dim}


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """Cut a body into its JSON header and the binary tensors behind it."""
    if length is None:
        end = len(body)
    elif length.isdecimal() and int(length) <= len(body):
        end = int(length)
    else:
        raise invalid(f"Inference-Header-Content-Length: found {length!r}, the body has {len(body)} bytes")
    header = parse_json(body[:end])
    if not isinstance(header, dict):
        raise invalid("expected a JSON object with inputs")
    return header, body[end:]


def _images(runtime: Runtime, served: Served, header: dict[str, Any], binary: bytes) -> Pixels:
    """Return the one input as uint8 (N, S, S, 3)."""
    inputs = header.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise invalid("inputs: expected exactly one, named images")
    tensor, size = inputs[0], served.engine.card.preprocess.size
    name, kind = tensor.get("name"), tensor.get("datatype")
    shape: Any = tensor.get("shape")
    if name != "images" or kind != "UINT8":
        raise invalid(f"inputs: found {name!r} of type {kind!r}, expected images of type UINT8")
    fits = isinstance(shape, list) and len(shape) == 4 and all(type(n) is int for n in shape)
    if not fits or shape[1:] != [size, size, 3] or shape[0] < 1:
        raise invalid(f"images: found the shape {shape}, expected [N, {size}, {size}, 3] with N at least 1")
    if shape[0] > runtime.settings.max_items:
        raise too_many(runtime.settings.max_items, shape[0])
    parameters = tensor.get("parameters") or {}
    size_in_bytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    expected = int(np.prod(shape))
    if size_in_bytes is not None:
        if size_in_bytes != expected or len(binary) != expected:
            raise invalid(f"images: found {len(binary)} bytes of binary data, the shape says {expected}")
        return np.frombuffer(binary, np.uint8).reshape(shape)
    try:
        values = np.asarray(tensor.get("data"), dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise invalid("images: expected data as a list of whole numbers from 0 to 255") from None
    if len(values) != expected:
        raise invalid(f"images: found {len(values)} numbers, the shape says {expected}")
    if not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
        raise invalid("images: expected data as a list of whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _wanted(header: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return the outputs asked for, each with whether it goes out as binary."""
    parameters = header.get("parameters") or {}
    default = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = header.get("outputs")
    if asked is None or asked == []:
        return [(name, default) for name in OUTPUTS]
    if not isinstance(asked, list):
        raise invalid("outputs: expected a list")
    wanted = []
    for output in asked:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise invalid(f"outputs: found {name!r}, expected some of {', '.join(OUTPUTS)}")
        options = output.get("parameters") or {}
        if not isinstance(options, dict) or options.get("classification"):
            raise invalid("outputs: classification is not offered")
        wanted.append((name, options.get("binary_data", default) is True))
    return wanted


def _render(
    served: Served, header: dict[str, Any], rows: list[EmbeddedImage], wanted: list[tuple[str, bool]]
) -> Response:
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in wanted:
        values: Floats = np.stack([getattr(row, name) for row in rows])
        output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if binary:
            tail.append(values.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = values.reshape(-1)
        outputs.append(output)
    answer: dict[str, Any] = {
        "model_name": served.name,
        "model_version": str(served.version),
        "outputs": outputs,
    }
    if isinstance(header.get("id"), str):
        answer["id"] = header["id"]
    head = dumps(answer)
    if not tail:
        return Response(head, media_type="application/json")
    return Response(
        b"".join([head, *tail]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )
