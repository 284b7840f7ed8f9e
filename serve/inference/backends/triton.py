"""triton://HOST:PORT/MODEL[/VERSION] -> a graph that runs on a Triton server, over gRPC.

The card, the model id and the golden pair come from the server's configuration of the model, as
`vssl export --triton` writes it; images are decoded here and pixels travel. The version is fixed
when the connection is made, so that a newer one cannot answer under the older one's model id.
Shape letters: N images, S side, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vssl.embeddings.gaussian import Floats
from vssl.errors import FormatError, InputError, MissingExtraError, VsslError
from vssl.images.preprocess import Pixels
from vssl.model.triton_parameters import VersionFacts, from_parameters

SCHEME = "triton://"
GRPC_PORT = 8001
ANSWER_S = 30.0
ASK_S = 5.0
LANES = 4  # batches on their way at once, so that the server always has one to work on
MESSAGE_BYTES = 2**31 - 1
CHANNEL = [
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # Without a bound, a server that was away for minutes stays away for minutes more.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
T = TypeVar("T")


class TritonServerError(VsslError):
    """The Triton server does not answer, or not now; knows its status and when to ask again."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = 1.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True)
class TritonAddress:
    """Where a model is served; version None means the newest when asked."""

    host: str
    model: str
    version: int | None

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.model}" + (f"/{self.version}" if self.version else "")


def is_triton(source: object) -> bool:
    """Return whether a model's source is a Triton server's; also one that went through a Path."""
    return str(source).startswith(SCHEME[:-1])


def parse_address(source: object) -> TritonAddress:
    """Parse triton://HOST[:PORT]/MODEL[/VERSION]; raises InputError for anything else."""
    text = re.sub(r"^triton:/+", SCHEME, str(source))  # a Path folds the two slashes into one
    expected = "expected triton://HOST:PORT/MODEL or triton://HOST:PORT/MODEL/VERSION"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or GRPC_PORT
    except ValueError as error:
        raise InputError(f"model: found {text!r} ({error}), {expected}") from None
    path = re.fullmatch(r"/([^/]+)(?:/([1-9][0-9]*))?/?", parts.path)
    if not host or path is None or parts.query or parts.fragment or parts.username:
        raise InputError(f"model: found {text!r}, {expected}")
    shown = f"[{host}]" if ":" in host else host
    return TritonAddress(f"{shown}:{port}", path[1], int(path[2]) if path[2] else None)


class TritonGraph:
    """A graph on a Triton server, at one version of one model."""

    engine = "triton"
    precision: str | None = None
    lanes = LANES
    remote = True
    threads = 1  # the work is elsewhere

    def __init__(
        self,
        address: TritonAddress,
        client: Any,
        version: int,
        largest: int,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """largest: images in one request; shapes: of each output per image, in the order of the answers."""
        powers = (2**power for power in range(largest.bit_length()))
        self.buckets = (*(size for size in powers if size < largest), largest)
        self.version = version
        self.address = address
        self.providers = [str(TritonAddress(address.host, address.model, version))]
        self._client, self._shapes = client, dict(shapes)

    def cut(self, total: int) -> Iterator[tuple[int, int, int]]:
        """Cut into as few requests as the server takes; it makes batches of its own sizes."""
        largest = self.buckets[-1]
        for start in range(0, total, largest):
            stop = min(total, start + largest)
            yield start, stop, stop - start

    def run(self, images: Pixels, *, more_waiting: bool = False) -> Sequence[Floats]:
        """Return the outputs in the order of the card; raises TritonServerError when the server does not answer."""
        from tritonclient import grpc

        tensor = grpc.InferInput("images", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        wanted = [grpc.InferRequestedOutput(name) for name in self._shapes]
        version = str(self.version)
        result = _asked(
            self.address,
            lambda: self._client.infer(
                self.address.model,
                [tensor],
                model_version=version,
                outputs=wanted,
                client_timeout=ANSWER_S,
            ),
        )
        try:
            # Triton has no tensor of one number an image: it comes as (N, 1).
            return [
                result.as_numpy(name).reshape(len(images), *shape) for name, shape in self._shapes.items()
            ]
        except ValueError as error:  # fewer bytes than its shape says
            raise FormatError(f"{self.providers[0]} answers tensors that are not whole: {error}") from error

    def stamp(self) -> Hashable | None:
        """Return the version that a new connection would take; None while the server does not answer."""
        if self.address.version is not None:
            return self.address.version
        try:
            return _newest(self.address, self._client)
        except VsslError:
            return None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def connect(source: object) -> tuple[TritonGraph, VersionFacts]:
    """Find a model on its server and read what its configuration says of it.

    Raises InputError (not such an address), TritonServerError (no answer, no such model or version, not
    ready), FormatError (a model that vssl did not write) or MissingExtraError (no tritonclient).
    """
    address = parse_address(source)
    client = _client(address)
    try:
        return _connect(address, client)
    except BaseException:
        client.close()
        raise


def _client(address: TritonAddress) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tritonclient import grpc
    except ModuleNotFoundError as error:
        raise MissingExtraError("tritonclient", "triton") from error
    return grpc.InferenceServerClient(address.host, channel_args=CHANNEL)


def _connect(address: TritonAddress, client: Any) -> tuple[TritonGraph, VersionFacts]:
    if not _asked(address, lambda: client.is_server_live(client_timeout=ASK_S)):
        raise TritonServerError(
            503, "model_unreachable", f"the Triton server at {address.host} is starting or ending"
        )
    version = address.version or _newest(address, client)
    config = _asked(
        address, lambda: client.get_model_config(address.model, str(version), client_timeout=ASK_S)
    ).config
    source = str(TritonAddress(address.host, address.model, version))
    facts = from_parameters(
        {key: value.string_value for key, value in config.parameters.items()}, version, source
    )
    _check_shapes(config, facts, source)
    if not _asked(address, lambda: client.is_model_ready(address.model, str(version), client_timeout=ASK_S)):
        raise TritonServerError(503, "model_unreachable", f"{source} is not ready yet")
    return TritonGraph(address, client, version, int(config.max_batch_size), facts.card.output_shapes), facts


def _newest(address: TritonAddress, client: Any) -> int:
    """Return the highest version of a model that is loaded."""
    metadata = _asked(address, lambda: client.get_model_metadata(address.model, client_timeout=ASK_S))
    versions = [int(version) for version in metadata.versions if version.isdecimal()]
    if not versions:
        raise TritonServerError(503, "model_unreachable", f"{address} has no version that is ready")
    return max(versions)


def _check_shapes(config: Any, facts: VersionFacts, source: str) -> None:
    """Raise FormatError unless the configuration's tensors are those of the card."""
    card, side = facts.card, facts.card.preprocess.size
    expected = {"images": [side, side, 3]}
    expected |= {name: list(shape or (1,)) for name, shape in card.output_shapes.items()}
    found = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    if found != expected or config.max_batch_size < 1:
        raise FormatError(
            f"{source} has the tensors {found} and batches up to {config.max_batch_size}, its card says {expected} and "
            "batches of at least 1; write the repository again: vssl export model.onnx --triton REPOSITORY"
        )


def _asked(address: TritonAddress, question: Callable[[], T]) -> T:
    """Ask the server; turn its errors into ours, each with what to do."""
    from tritonclient.utils import InferenceServerException

    try:
        return question()
    except InferenceServerException as error:
        status = str(error.status()).removeprefix("StatusCode.")
        reason = " ".join(str(error.message()).split())[:200]
    if status == "NOT_FOUND":
        raise TritonServerError(
            503,
            "model_unreachable",
            f"the Triton server at {address.host} serves no {address.model!r}"
            f"{f' of version {address.version}' if address.version else ''} ({reason}); put it into its repository "
            "with: vssl export model.onnx --triton REPOSITORY",
        )
    if status == "DEADLINE_EXCEEDED":
        raise TritonServerError(
            504, "deadline", f"the Triton server at {address.host} did not answer in time", None
        )
    if "queue size" in reason:
        raise TritonServerError(
            429, "queue_full", f"the Triton server's queue for {address.model} is full ({reason})"
        )
    if status in ("UNAVAILABLE", "CANCELLED"):
        raise TritonServerError(
            503,
            "model_unreachable",
            f"no Triton server answers at {address.host} ({reason}); is it running, and is this its gRPC port "
            f"({GRPC_PORT} by default)?",
        )
    raise FormatError(f"{address}: the Triton server refuses ({status.lower()}): {reason}")
