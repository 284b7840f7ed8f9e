"""/v2: the KServe v2 (Open Inference Protocol) dialect for the graph itself, binary tensors included.

Input `images` uint8 (N, S, S, 3), already at the card's size; outputs mean, variance (N, D) and
features (N, F) float32. Rows join the same batches as every other request. Errors have the
protocol's own form {"error": "message"}. Shape letters: N images, S side, D and F dimensions.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypeAliasType, TypedDict

from serve.http.batching.models import ServedModel
from serve.http.errors import invalid
from serve.http.io.answers import dumps, json_response
from serve.http.io.body import too_many
from serve.http.io.schemas import Numbers, Whole, Wholes
from serve.http.io.validation import Lenient, from_json
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, raise_first
from serve.http.routes.routing import AnyQuery, Handler, Route
from serve.http.state import Runtime
from serve.inference.embedded import EmbeddedImages
from vssl.embeddings.gaussian import Floats
from vssl.errors import shown
from vssl.images.preprocess import Pixels
from vssl.model.identity import VERSION

MAX_DIGITS = 19
HEADER_LENGTH = "inference-header-content-length"
OutputName = Literal["mean", "variance", "features", "uncertainty"]
Shape = TypeAliasType("Shape", Annotated[list[int], Wholes, Field(min_length=4, max_length=4)])


class Parameters(Lenient):
    """How an input's data came; how one output, or each, is to go out."""

    binary_data_size: Annotated[int, Whole] | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None
    classification: Annotated[int, Whole] | None = None


class InferInput(Lenient):
    """The images, uint8 (N, S, S, 3) at the model's size: as numbers, or as binary data behind the JSON."""

    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: Shape
    data: list[Any] | None = None
    parameters: Parameters | None = None


class RequestedOutput(Lenient):
    """An output that is asked for."""

    name: OutputName
    parameters: Parameters | None = None


class InferRequest(Lenient):
    """One input, and the outputs that are asked for: all when none is."""

    id: str | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)]
    outputs: list[RequestedOutput] | None = Field(None, fail_fast=True)
    parameters: Parameters | None = None


class InferredOutput(TypedDict):
    """An output: its numbers as data, or binary_data_size bytes behind the JSON."""

    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    data: NotRequired[Numbers]
    parameters: NotRequired[dict[str, int]]


class InferAnswer(TypedDict):
    """What the graph gives."""

    id: NotRequired[str]
    model_name: str
    model_version: str
    outputs: list[InferredOutput]


class KServeError(TypedDict):
    """The protocol's own error."""

    error: str


async def server_metadata(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: the server's name, version and extensions."""
    return json_response({"name": "vssl", "version": VERSION, "extensions": ["binary_tensor_data"]})


async def live(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: alive, the process answers."""
    return json_response({"live": True})


async def ready(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: ready, every model answers its golden pair."""
    await runtime.check_ready()
    return json_response({"ready": True})


async def model_ready(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: whether the model answers its golden pair."""
    served = _named(runtime, context)
    await runtime.check_ready(served)
    return json_response({"name": served.name, "ready": True})


async def model_metadata(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: names, types and shapes of the model's tensors."""
    served = _named(runtime, context)
    card = served.engine.card
    size = card.preprocess.size
    return json_response(
        {
            "name": served.name,
            "versions": sorted(str(s.version) for s in runtime.models.all if s.name == served.name),
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, size, size, 3]}],
            "outputs": [
                {"name": n, "datatype": "FP32", "shape": [-1, *shape]}
                for n, shape in card.output_shapes.items()
            ],
        }
    )


async def infer(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """KServe: run the graph.

    Input images, uint8 (N, S, S, 3) at the model's size; outputs mean, variance, features. Binary tensors as
    in the protocol's extension.
    """
    _named(runtime, context)  # an unknown model costs no body
    begun = time.perf_counter()
    body = await runtime.bodies.read(context)
    served = _named(runtime, context)  # after the wait: it may have been replaced meanwhile
    length = context.headers.get(HEADER_LENGTH.encode())
    header, images = await runtime.bodies.aside(len(body), _read, runtime, served, body, length)
    wanted = _wanted(header, list(served.engine.card.output_shapes))
    context.timings["read"] = time.perf_counter() - begun
    answers = await embed_images(runtime, served, context, list(images))
    raise_first(answers, "images")
    begun = time.perf_counter()
    response = _render(served, header, answers, wanted)
    context.timings["serialise"] = time.perf_counter() - begun
    return response


def _get(path: str, handler: Handler[AnyQuery], *, is_open: bool = False) -> Route[AnyQuery]:
    return Route(
        "GET",
        f"/v2{path}",
        handler,
        AnyQuery,
        f"curl $URL/v2{path}",
        answer=dict[str, Any],
        statuses=(503,),
        error=KServeError,
        is_open=is_open,
    )


def _of_model(path: str) -> list[Route[AnyQuery]]:
    client = "python: tritonclient.http.InferenceServerClient('HOST:PORT').infer('MODEL', [images])"
    infer_route = Route(
        "POST",
        f"/v2{path}/infer",
        infer,
        AnyQuery,
        client,
        body=InferRequest,
        answer=InferAnswer,
        media=("application/octet-stream",),
        error=KServeError,
    )
    return [_get(path, model_metadata), _get(f"{path}/ready", model_ready), infer_route]


ROUTES = [
    _get("", server_metadata),
    _get("/health/live", live, is_open=True),
    _get("/health/ready", ready, is_open=True),
    *_of_model("/models/{model}"),
    *_of_model("/models/{model}/versions/{version}"),
]


def _named(runtime: Runtime, context: RequestContext) -> ServedModel:
    """Return the model and version of the path; raises RequestError 404."""
    return runtime.models.find(context.path_params["model"], context.path_params.get("version"))


def _read(
    runtime: Runtime, served: ServedModel, body: bytes, length: bytes | None
) -> tuple[InferRequest, Pixels]:
    header, binary = _split(body, length)
    return header, _images(runtime, served, header.inputs[0], binary)


def _split(body: bytes, length: bytes | None) -> tuple[InferRequest, bytes]:
    """Cut a body into its JSON header and the binary tensors behind it."""
    if length is None:
        end = len(body)
    elif length.isdigit() and len(length) <= MAX_DIGITS and int(length) <= len(body):
        end = int(length)
    else:
        raise invalid(
            f"Inference-Header-Content-Length: found {shown(length.decode('latin-1'))}, the body has {len(body)} bytes"
        )
    return from_json(InferRequest, body[:end]), body[end:]


def _images(runtime: Runtime, served: ServedModel, tensor: InferInput, binary: bytes) -> Pixels:
    """Return the one input as uint8 (N, S, S, 3)."""
    size, shape = served.engine.card.preprocess.size, tensor.shape
    if shape[1:] != [size, size, 3] or shape[0] < 1:
        raise invalid(f"images: found the shape {shape}, expected [N, {size}, {size}, 3] with N at least 1")
    if shape[0] > runtime.settings.max_items:
        raise too_many(runtime.settings.max_items, shape[0])
    size_in_bytes = tensor.parameters.binary_data_size if tensor.parameters else None
    expected = int(np.prod(shape))
    if size_in_bytes is not None:
        if size_in_bytes != expected or len(binary) != expected:
            raise invalid(f"images: found {len(binary)} bytes of binary data, the shape says {expected}")
        return np.frombuffer(binary, np.uint8).reshape(shape)
    try:
        values = np.asarray(tensor.data, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise invalid("images: expected data as a list of whole numbers from 0 to 255") from None
    if len(values) != expected:
        raise invalid(f"images: found {len(values)} numbers, the shape says {expected}")
    if not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
        raise invalid("images: expected data as a list of whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _wanted(header: InferRequest, known: list[str]) -> list[tuple[str, bool]]:
    """Return the outputs asked for of those the model has, each with whether it goes out as binary."""
    default = header.parameters is not None and header.parameters.binary_data_output is True
    if not header.outputs:
        return [(name, default) for name in known]
    wanted: list[tuple[str, bool]] = []
    for output in header.outputs:
        options = output.parameters or Parameters()
        if options.classification:
            raise invalid("outputs: classification is not offered")
        if output.name not in known:
            raise invalid(f"outputs: found {output.name!r}, expected some of {', '.join(known)}")
        if output.name in dict(wanted):
            raise invalid(f"outputs: found {output.name} twice, expected it once")
        wanted.append((output.name, default if options.binary_data is None else options.binary_data))
    return wanted


def _render(
    served: ServedModel, header: InferRequest, answers: EmbeddedImages, wanted: list[tuple[str, bool]]
) -> Response:
    outputs: list[InferredOutput] = []
    tail: list[bytes] = []
    for name, binary in wanted:
        values: Floats = getattr(answers, name)
        output: InferredOutput = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if binary:
            tail.append(values.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = values.reshape(-1)
        outputs.append(output)
    answer: InferAnswer = {
        "model_name": served.name,
        "model_version": str(served.version),
        "outputs": outputs,
    }
    if header.id is not None:
        answer["id"] = header.id
    head = dumps(answer)
    if not tail:
        return Response(head, media_type="application/json")
    return Response(
        b"".join([head, *tail]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )
