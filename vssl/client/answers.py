"""A server's answers -> typed results, or the error that they are.

Shape letters: M images embedded, D embedding dimension, K neighbours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from vssl.client.calls import Call
from vssl.embeddings.batch import Embedded, Failed
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import MODEL_ID_KEY, card_of, gaussians_of
from vssl.errors import VsslError

LONGEST_WAIT_S = 30.0
LONE_IMAGE = (400, 415, 422)


class ServerError(VsslError):
    """The server refused a request; carries its status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} (status {status}, {code})")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Neighbour:
    """One result of a search, nearest first (see the server's /search)."""

    id: str
    label: str | None
    distance: float
    variance_score: float | None
    match_probability: float | None
    uncertainty: float | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """The answer to one query: its uncertainty and K neighbours, or the failure of its image.

    abstain: whether not to trust it; None where the server was given no --max-risk. risk: the share of the
    gallery's own answers that are safer; None where the gallery cannot say.
    """

    uncertainty: float | None
    neighbours: list[Neighbour]
    failure: Failed | None = None
    abstain: bool | None = None
    risk: float | None = None


def wait_for(response: httpx.Response, attempt: int) -> float | None:
    """Return the seconds after which to try again, or None when there is an answer."""
    if response.status_code not in (429, 503):
        return None
    named = response.headers.get("retry-after", "")
    least = float(named) if named.isdecimal() else 0.5 * 2**attempt
    return min(LONGEST_WAIT_S, least) * (1 + 0.2 * random.random())  # not all clients at once


def checked(response: httpx.Response) -> httpx.Response:
    """Return a response that is a success; raises ServerError for any other."""
    if response.is_success:
        return response
    code, message = _error(response)
    raise ServerError(response.status_code, code, message)


def _error(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "http_error", response.text[:200]


def parsed(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer; raises ServerError where it is none."""
    values: dict[str, Any] = checked(response).json()
    return values


def embedded(response: httpx.Response, call: Call) -> Embedded:
    """Return the Gaussians of an Arrow answer to `call`; a lone bad image is a failure in them, not an error."""
    names = _sent_names(call)
    if len(names) == 1 and response.status_code in LONE_IMAGE:
        # The server answers a lone bad image with its status; here it is a failure like any other.
        nothing = np.empty((0, 0), np.float32)
        failed = Failed(0, names[0], *_error(response))
        return Embedded([], np.empty(0, np.int64), GaussianEmbedding(nothing, nothing), [failed], "")
    checked(response)
    table = pa.ipc.open_stream(response.content).read_all()
    codes, messages = table.column("error_code").to_pylist(), table.column("error_message").to_pylist()
    failures = [Failed(n, names[n], code, messages[n]) for n, code in enumerate(codes) if code is not None]
    model_id = (table.schema.metadata or {}).get(MODEL_ID_KEY.encode(), b"").decode()
    kept = np.flatnonzero([code is None for code in codes])
    card = card_of(table)
    gaussians = gaussians_of(table.take(kept), card)
    return Embedded([names[row] for row in kept], kept, gaussians, failures, model_id, card)


def _sent_names(call: Call) -> list[str]:
    """Return the names of the images of a call; a server repeats them as HTTP escaped them: %22 for a quote."""
    return [name for _, (name, _) in call.options["files"]]


def found(response: httpx.Response, call: Call) -> list[Found]:
    """Return the answers to a search, one a query."""
    answers = []
    for position, result in enumerate(parsed(response)["results"]):
        if "error" in result:
            error = result["error"]
            failure = Failed(position, _sent_names(call)[position], error["code"], error["message"])
            answers.append(Found(None, [], failure))
        else:
            neighbours = [
                Neighbour(**{name: n.get(name) for name in Neighbour.__dataclass_fields__})
                for n in result["neighbours"]
            ]
            abstain, risk = result.get("abstain"), result.get("risk")
            answers.append(Found(result["uncertainty"], neighbours, abstain=abstain, risk=risk))
    return answers
