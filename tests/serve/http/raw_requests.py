"""Requests as they stand on the wire, which no client normalises, and what each refusal must be like."""

from __future__ import annotations

import base64
import socket
from typing import Any

import httpx

from tests.serve.http.conftest import encoded
from tests.serve.running import Running

PICTURE = encoded(100)
TEXT = base64.b64encode(PICTURE).decode()


def raw(
    server: Running, method: str, path: str, body: bytes = b"", kind: str = "image/png"
) -> httpx.Response:
    """Send a path as it stands: clients normalise theirs."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    head += f"Content-Type: {kind}\r\n\r\n" if kind else "\r\n"
    return exchanged(host, int(port), head.encode() + body)


def exchanged(host: str, port: int, data: bytes) -> httpx.Response:
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(data)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Check a refusal: its status, one error body, short, without a place of this machine; return the error."""
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 1200
    assert "/tmp/" not in answer.text
    error = answer.json()["error"]
    return error if isinstance(error, dict) else {"message": error}
