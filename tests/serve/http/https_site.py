"""An https server on loopback, with one path for every kind of answer that a fetch may meet."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import trustme

from serve.http.io.addresses import Address, AllowList
from serve.http.io.fetch import Fetcher
from tests.serve.http.conftest import encoded

MOST = 100_000
"""Bytes of an image that the tests' fetchers take; `/huge` and `/endless` go beyond."""


class Pages(http.server.BaseHTTPRequestHandler):
    """One path for every kind of answer."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers))
        name = self.path.partition("?")[0].removeprefix("/")
        kind, _, rest = name.partition("/")
        getattr(self, f"answer_{kind}", self.answer_absent)(rest)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def answer_image(self, seed: str) -> None:
        body = encoded(int(seed))
        self._send(200, body, Content_Length=str(len(body)), Content_Type="image/png")

    def answer_unsized(self, seed: str) -> None:
        self._send(200, encoded(int(seed)))

    def answer_page(self, _: str) -> None:
        self._send(200, b"<html>no picture</html>", Content_Type="image/png")

    def answer_absent(self, _: str) -> None:
        self._send(404, b"")

    def answer_huge(self, _: str) -> None:
        self._send(200, b"x", Content_Length=str(10 * MOST))

    def answer_endless(self, _: str) -> None:
        self._send(200, b"x" * (2 * MOST))

    def answer_packed(self, _: str) -> None:
        self._send(200, b"x", Content_Encoding="gzip", Content_Length="1")

    def answer_cut(self, _: str) -> None:
        self._send(200, b"x" * 10, Content_Length="20")

    def answer_drip(self, _: str) -> None:
        self._send(200, b"")
        with contextlib.suppress(OSError):
            for _n in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)

    def answer_to(self, where: str) -> None:
        self._send(302, b"", Location=where)

    def answer_hop(self, left: str) -> None:
        self._send(307, b"", Location=f"/hop/{int(left) - 1}" if int(left) else "/image/3")

    def answer_nowhere(self, _: str) -> None:
        self._send(302, b"")


class Site:
    """An https server on loopback, its certificates' authority, its port."""

    def __init__(self, authority: trustme.CA, name: str) -> None:
        self.pages = type("ItsPages", (Pages,), {"seen": []})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.pages)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def is_loopback(address: Address) -> bool:
    return address == ipaddress.ip_address("127.0.0.1")


def fetcher(
    site: Site,
    context: ssl.SSLContext | None,
    *,
    rule: Callable[[Address], bool] = is_loopback,
    hosts: str = "",
    timeout_s: float = 20,
) -> Fetcher:
    hosts = hosts or f"localhost:{site.port},absent.invalid:{site.port}"
    return Fetcher(AllowList.parse(hosts), most_bytes=MOST, timeout_s=timeout_s, rule=rule, context=context)
