"""https URLs -> the bytes behind them, or the error of that image: off unless hosts are named.

httpx speaks HTTP; this module decides where it may go. Every step that could lead elsewhere is checked:
the scheme, the host and port against the allow-list, every address the name resolves to, and all of it again
for each redirect. The connection goes to an address that was checked, not to a name that could resolve
differently a moment later. Nothing of the environment (proxies, credentials) is used, and nothing of the
request is passed on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from serve.http.errors import RequestError
from serve.http.io.addresses import AddressRule, AllowList, is_public
from vssl.errors import VsslError

MAX_REDIRECTS = 3
MAX_URL = 2048
AT_ONCE = 16  # connections of one process
DISABLED = "this server fetches no URLs; send the image itself: as base64, a data URI or the request's body"
HEADERS = {"User-Agent": "vssl", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}

Account = Callable[[int], None]
"""Is told the bytes that arrived; raises to stop them."""


@dataclass(frozen=True)
class Link:
    """An image that is still elsewhere."""

    url: str


class Fetcher:
    """Fetches images from the hosts that an operator named.

    most_bytes: of one image; timeout_s: from being asked to the last byte, the wait
    for its turn and redirects included.
    rule, context: which addresses may be connected to, and which certificates TLS trusts; the public internet and the
    machine's own certificates unless an object of another kind is passed in.
    """

    def __init__(
        self,
        hosts: AllowList,
        *,
        most_bytes: int,
        timeout_s: float,
        rule: AddressRule = is_public,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._rule = rule
        self._slots = asyncio.Semaphore(AT_ONCE)
        # A transport, not a client: no cookies, no credentials, no unchecked redirects. And no
        # connection is used twice, since the next request of an address may be for another host.
        self._transport = httpx.AsyncHTTPTransport(
            verify=context or ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        # A look-up cannot be interrupted: in the loop's own threads slow ones would hold up everything else.
        self._lookups = ThreadPoolExecutor(AT_ONCE, "lookup")

    async def fetch(self, links: Sequence[Link], account: Account) -> list[bytes | VsslError]:
        """Fetch each link; an error stays with its own. `account` may raise to end them all."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fetch(link.url, account)) for link in links]
        return [task.result() for task in tasks]

    async def _fetch(self, url: str, account: Account) -> bytes | VsslError:
        try:
            async with asyncio.timeout(self._timeout_s) as limit, self._slots:
                return await self._follow(_parsed(url), account, limit)
        except (TimeoutError, httpx.TimeoutException):
            return failed("url_timeout", f"the image did not arrive within {self._timeout_s:g} s")
        except httpx.TransportError:
            return failed("url_broken", "the answer broke off or is not HTTP")
        except _FetchError as error:
            return error.answer

    async def _follow(self, url: httpx.URL, account: Account, limit: asyncio.Timeout) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._ask(url, limit)
            try:
                if not response.has_redirect_location:
                    return await self._body(response, account)
                url = url.join(response.headers["location"])
            except httpx.InvalidURL:
                raise _FetchError(
                    failed("url_broken", "the URL redirects to something that is no URL")
                ) from None
            finally:
                await response.aclose()
        raise _FetchError(failed("url_redirects", f"redirected more than {MAX_REDIRECTS} times"))

    async def _ask(self, url: httpx.URL, limit: asyncio.Timeout) -> httpx.Response:
        """Send GET to an address of the URL's host that was checked; the certificate must be the host's."""
        host, port = self._check(url)
        headers = {"Host": url.netloc.decode(), **HEADERS}
        for address in await self._resolve(host, port):
            # httpcore closes a connection whose handshake runs out of its own time, not one that is cancelled: TCP
            # and TLS get less than half each of what is left.
            left = (limit.when() or 0) - asyncio.get_running_loop().time()
            extensions = {"sni_hostname": host, "timeout": {"connect": max(0.45 * left, 0)}}
            request = httpx.Request(
                "GET", url.copy_with(host=address), headers=headers, extensions=extensions
            )
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError as error:
                refusal = next((e for e in _causes(error) if isinstance(e, ssl.SSLError)), None)
                if refusal is not None:
                    reason = (
                        getattr(refusal, "verify_message", "") or refusal.reason or "the handshake failed"
                    )
                    raise _FetchError(failed("url_tls", f"no trusted TLS connection: {reason}")) from None
        raise _FetchError(failed("url_unreachable", "the URL's host does not answer"))

    def _check(self, url: httpx.URL) -> tuple[str, int]:
        """Return host and port of a URL that may be asked."""
        if url.scheme != "https" or url.userinfo or len(str(url)) > MAX_URL:
            raise _FetchError(
                not_allowed(
                    f"expected https://HOST/PATH of at most {MAX_URL} characters, without credentials"
                )
            )
        host, port = url.host.rstrip("."), url.port or 443
        if not self._hosts.allows(host, port):
            raise _FetchError(not_allowed("this server does not fetch from that host and port"))
        return host, port

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host; one that may not be connected to excludes them all."""
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(self._lookups, _look_up, host, port)
        except (OSError, UnicodeError):
            raise _FetchError(failed("url_unresolved", "the URL's host name does not resolve")) from None
        if not addresses or not all(self._rule(ipaddress.ip_address(a)) for a in addresses):
            raise _FetchError(not_allowed("the URL's host resolves to an address that is not a public one"))
        return addresses

    async def _body(self, response: httpx.Response, account: Account) -> bytes:
        if response.status_code != 200:
            raise _FetchError(failed("url_status", f"the URL answers {response.status_code}, expected 200"))
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _FetchError(failed("url_broken", "the answer is compressed, which was not asked for"))
        size = int(response.headers.get("content-length", "0"))
        parts: list[bytes] = []
        if size <= self._most_bytes:
            size = 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > self._most_bytes:
                    break
                account(len(part))
                parts.append(part)
        if size > self._most_bytes:
            message = f"the URL's image has more than {self._most_bytes} bytes, the most fetched"
            raise _FetchError(RequestError(413, "too_many_bytes", message))
        return b"".join(parts)


class _FetchError(Exception):
    """Carries an image's error out of the depths."""

    def __init__(self, answer: RequestError) -> None:
        super().__init__(str(answer))
        self.answer = answer


def _parsed(url: str) -> httpx.URL:
    """Return a URL of plain characters."""
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    try:
        return httpx.URL(url if plain else "")
    except httpx.InvalidURL:
        return httpx.URL()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def failed(code: str, message: str) -> RequestError:
    """Return the error of a URL that was asked and gave no image."""
    return RequestError(422, code, message)


def not_allowed(message: str) -> RequestError:
    """Return the error of a URL that is not asked."""
    return RequestError(400, "url_not_allowed", message)
