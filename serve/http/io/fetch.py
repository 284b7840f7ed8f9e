"""https URLs -> the bytes behind them, or the error of that image: off unless hosts are named.

Every step that could lead elsewhere is checked again: the scheme, the host and port against the
allow-list, every address the name resolves to, and all of it anew for each redirect. The connection
goes to an address that was checked, not to a name that could resolve differently a moment later.
Nothing of the environment (proxies, credentials) is used, and nothing of the request is passed on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urljoin

import h11

from serve.http.errors import RequestError
from serve.http.io.addresses import AddressRule, AllowList, is_public
from vssl.errors import VsslError

MAX_REDIRECTS = 3
MAX_URL = 2048
AT_ONCE = 16  # connections of one process
READ_BYTES = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
DISABLED = "this server fetches no URLs; send the image itself: as base64, a data URI or the request's body"

# Stricter than RFC 3986, so that no two readers of a URL can see different hosts in it.
_URL = re.compile(
    r"https://(?P<host>[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?(?P<path>[/?][!\"$-\[\]-~]*)?(?:#[!-~]*)?"
)

Account = Callable[[int], None]
"""Is told the bytes that arrived; raises to stop them."""


@dataclass(frozen=True)
class Link:
    """An image that is still elsewhere."""

    url: str


@dataclass(frozen=True)
class _Place:
    """A URL that was found to be allowed."""

    host: str
    port: int
    path: str


class Fetcher:
    """Fetches images from the hosts that an operator named.

    most_bytes: of one image; timeout_s: from being asked to the last byte, the wait
    for its turn and redirects included.
    rule, context: which addresses are gone to, and whom TLS trusts; the public internet and the
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
        self._context = context or ssl.create_default_context()
        self._context.set_alpn_protocols(["http/1.1"])
        self._slots = asyncio.Semaphore(AT_ONCE)
        # A look-up cannot be interrupted: in the loop's own threads slow ones would hold up everything else.
        self._lookups = ThreadPoolExecutor(AT_ONCE, "lookup")

    async def fetch(self, links: Sequence[Link], account: Account) -> list[bytes | VsslError]:
        """Fetch each link; an error stays with its own. `account` may raise to end them all."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fetch(link.url, account)) for link in links]
        return [task.result() for task in tasks]

    async def _fetch(self, url: str, account: Account) -> bytes | VsslError:
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                return await self._follow(url, account)
        except TimeoutError:
            return failed("url_timeout", f"the image did not arrive within {self._timeout_s:g} s")
        except _FetchError as error:
            return error.answer

    async def _follow(self, url: str, account: Account) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            place = self._check(url)
            found = await self._get(place, await self._resolve(place), account)
            if isinstance(found, bytes):
                return found
            url = _joined(url, found.url)
        raise _FetchError(failed("url_redirects", f"redirected more than {MAX_REDIRECTS} times"))

    def _check(self, url: str) -> _Place:
        """Take a URL apart and hold it against the allow-list."""
        found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
        if found is None:
            raise _FetchError(
                not_allowed(
                    f"expected https://HOST/PATH of at most {MAX_URL} plain characters, without credentials"
                )
            )
        host, port = found["host"].lower().rstrip("."), int(found["port"] or 443)
        if not self._hosts.allows(host, port):
            raise _FetchError(not_allowed("this server does not fetch from that host and port"))
        path = found["path"] or "/"
        return _Place(host, port, path if path[0] == "/" else f"/{path}")

    async def _resolve(self, place: _Place) -> list[str]:
        """Return the addresses of a host; one that must not be gone to is a reason to go to none."""
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(
                self._lookups, _look_up, place.host, place.port
            )
        except (OSError, UnicodeError):
            raise _FetchError(failed("url_unresolved", "the URL's host name does not resolve")) from None
        if not addresses or not all(self._rule(ipaddress.ip_address(a)) for a in addresses):
            raise _FetchError(not_allowed("the URL's host resolves to an address that is not a public one"))
        return addresses

    async def _get(self, place: _Place, addresses: Sequence[str], account: Account) -> bytes | Link:
        """Ask one of the addresses; return the body, or where a redirect leads."""
        for address in addresses:
            try:
                reader, writer = await asyncio.open_connection(
                    address, place.port, ssl=self._context, server_hostname=place.host
                )
                break
            except ssl.SSLError as error:
                reason = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
                raise _FetchError(failed("url_tls", f"no trusted TLS connection: {reason}")) from None
            except OSError:
                continue
        else:
            raise _FetchError(failed("url_unreachable", "the URL's host does not answer"))
        try:
            return await self._exchange(place, reader, writer, account)
        except (OSError, h11.RemoteProtocolError):
            raise _FetchError(failed("url_broken", "the answer broke off or is not HTTP")) from None
        finally:
            writer.transport.abort()  # nobody waits for its farewell

    async def _exchange(
        self, place: _Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, account: Account
    ) -> bytes | Link:
        talk = h11.Connection(h11.CLIENT)
        host = place.host if place.port == 443 else f"{place.host}:{place.port}"
        headers = [("Host", host), ("User-Agent", "vssl"), ("Accept", "image/*")]
        headers += [("Accept-Encoding", "identity"), ("Connection", "close")]
        sent = talk.send(h11.Request(method="GET", target=place.path, headers=headers))
        writer.write((sent or b"") + (talk.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        parts: list[bytes] = []
        size = 0
        while True:
            event = talk.next_event()
            if event is h11.NEED_DATA:
                talk.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                if event.status_code in REDIRECTS:
                    return _location(event)
                self._check_head(event)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._most_bytes:
                    raise _FetchError(self._too_large())
                account(len(event.data))
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(parts)
            elif not isinstance(event, h11.InformationalResponse):
                raise _FetchError(failed("url_broken", "the connection ended before the answer"))

    def _check_head(self, response: h11.Response) -> None:
        headers = dict(response.headers)
        if response.status_code != 200:
            raise _FetchError(failed("url_status", f"the URL answers {response.status_code}, expected 200"))
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _FetchError(failed("url_broken", "the answer is compressed, which was not asked for"))
        if int(headers.get(b"content-length", b"0")) > self._most_bytes:
            raise _FetchError(self._too_large())

    def _too_large(self) -> RequestError:
        return RequestError(
            413, "too_many_bytes", f"the URL's image has more than {self._most_bytes} bytes, the most fetched"
        )


class _FetchError(Exception):
    """Carries an image's error out of the depths."""

    def __init__(self, answer: RequestError) -> None:
        super().__init__(str(answer))
        self.answer = answer


def _location(response: h11.Response) -> Link:
    place = dict(response.headers).get(b"location")
    if place is None:
        raise _FetchError(failed("url_status", f"the URL answers {response.status_code} without a location"))
    return Link(place.decode("latin-1"))


def _look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _joined(url: str, location: str) -> str:
    """Return where a redirect from `url` leads."""
    try:
        return urljoin(url, location)
    except ValueError:  # brackets that hold no address, among others
        raise _FetchError(failed("url_broken", "the URL redirects to something that is no URL")) from None


def failed(code: str, message: str) -> RequestError:
    """Return the error of a URL that was asked and gave no image."""
    return RequestError(422, code, message)


def not_allowed(message: str) -> RequestError:
    """Return the error of a URL that is not asked."""
    return RequestError(400, "url_not_allowed", message)
