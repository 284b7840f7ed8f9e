"""Images given as URLs: a real https server, and everything that can be wrong with one.

The server listens on loopback, which the rule of the real thing refuses: the tests pass a rule and
a certificate authority of their own as objects; no setting or variable reaches either.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from serve.http.io.addresses import is_public
from serve.http.io.fetch import AT_ONCE, Fetcher, Link
from tests.serve.http.conftest import encoded
from tests.serve.http.https_site import Site, fetcher
from vssl.errors import VsslError


def run(made: Callable[[], Fetcher], *urls: str) -> list[bytes | VsslError]:
    async def work() -> list[bytes | VsslError]:
        return await made().fetch([Link(url) for url in urls], lambda _: None)

    return asyncio.run(work())


def code(answer: bytes | VsslError) -> str:
    return answer.code if isinstance(answer, VsslError) else "fetched"


def test_what_is_there_is_fetched_and_each_error_stays_with_its_own(
    site: Site, trusting: ssl.SSLContext
) -> None:
    base = f"https://localhost:{site.port}"
    wanted = {
        f"{base}/image/1": "fetched",
        f"{base}/unsized/2": "fetched",
        f"{base}/page": "fetched",  # the bytes decide what it is, and the decoder will say
        f"{base}/absent": "url_status",
        f"{base}/huge": "too_many_bytes",
        f"{base}/endless": "too_many_bytes",
        f"{base}/packed": "url_broken",
        f"{base}/cut": "url_broken",
        f"{base}/nowhere": "url_status",
        f"{base}/hop/3": "url_redirects",
        f"{base}/hop/2": "fetched",
        f"{base}/to/{base}/image/4": "fetched",
        f"{base}/to/http://localhost:{site.port}/image/1": "url_not_allowed",
        f"{base}/to/https://127.0.0.1:{site.port}/image/1": "url_not_allowed",
        f"{base}/to/https://elsewhere.example/image/1": "url_not_allowed",
        f"{base}/to/file:///etc/passwd": "url_not_allowed",
        f"{base}/to/https://[": "url_not_allowed",
        f"{base}/to/https://localhost:x/": "url_broken",
        f"http://localhost:{site.port}/image/1": "url_not_allowed",
        "https://localhost/image/1": "url_not_allowed",  # another port
        f"https://user:secret@localhost:{site.port}/image/1": "url_not_allowed",
        f"https://localhost:{site.port}\\@elsewhere.example/image/1": "url_not_allowed",
        f"https://localhost:{site.port}/a b": "url_not_allowed",
        f"{base}/{'x' * 3000}": "url_not_allowed",
        f"https://absent.invalid:{site.port}/image/1": "url_unresolved",
        "": "url_not_allowed",
    }
    answers = run(lambda: fetcher(site, trusting), *wanted)
    assert {url: code(answer) for url, answer in zip(wanted, answers, strict=True)} == wanted
    assert answers[0] == encoded(1)
    assert answers[10] == encoded(3)
    assert answers[11] == encoded(4)
    refused = {a.status for a in answers if isinstance(a, VsslError)}
    assert refused == {400, 413, 422}


def test_what_stands_behind_a_hash_is_not_sent(site: Site, trusting: ssl.SSLContext) -> None:
    base = f"https://localhost:{site.port}"
    site.pages.answer_path = lambda self, _: self._send(200, self.path.encode())  # type: ignore[attr-defined]
    site.pages.answer_turn = lambda self, _: self._send(302, b"", Location="/path/b?c=%23#d")  # type: ignore[attr-defined]
    urls = [f"{base}/path/a?b=c#d", f"{base}/turn", f"{base}/path/#", f"{base}#d"]
    answers = run(lambda: fetcher(site, trusting), *urls)
    assert answers[:3] == [b"/path/a?b=c", b"/path/b?c=%23", b"/path/"]
    assert code(answers[3]) == "url_status"


def test_a_loop_of_redirects_ends(site: Site, trusting: ssl.SSLContext) -> None:
    base = f"https://localhost:{site.port}"
    site.pages.answer_loop = lambda self, _: self._send(301, b"", Location=f"{base}/loop")  # type: ignore[attr-defined]
    before = len(site.pages.seen)
    (answer,) = run(lambda: fetcher(site, trusting), f"{base}/loop")
    assert code(answer) == "url_redirects"
    assert len(site.pages.seen) - before == 4  # the first, and three redirects


def test_a_slow_drip_is_cut_off(site: Site, trusting: ssl.SSLContext) -> None:
    urls = [f"https://localhost:{site.port}/drip"] * 3
    begun = time.monotonic()
    answers = run(lambda: fetcher(site, trusting, timeout_s=0.5), *urls)
    assert [code(a) for a in answers] == ["url_timeout"] * 3
    assert time.monotonic() - begun < 4.5  # the drip takes five seconds


def test_a_handshake_that_never_ends_leaves_no_connection(site: Site, trusting: ssl.SSLContext) -> None:
    async def work(port: int) -> tuple[list[bytes | VsslError], list[int]]:
        made = fetcher(site, trusting, hosts=f"localhost:{port}", timeout_s=0.5)
        answers = await made.fetch([Link(f"https://localhost:{port}/")] * 3, lambda _: None)
        open_ones = psutil.Process().net_connections("tcp")
        return answers, [c.fd for c in open_ones if c.raddr and c.raddr.port == port]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        answers, left = asyncio.run(work(silent.getsockname()[1]))
    assert [code(a) for a in answers] == ["url_timeout"] * 3
    assert left == []


def test_an_untrusted_certificate_is_refused(site: Site) -> None:
    (answer,) = run(lambda: fetcher(site, None), f"https://localhost:{site.port}/image/1")
    assert code(answer) == "url_tls"


def test_a_certificate_of_another_host_is_refused(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    other = Site(authority, "elsewhere.example")
    try:
        (answer,) = run(lambda: fetcher(other, trusting), f"https://localhost:{other.port}/image/1")
    finally:
        other.close()
    assert code(answer) == "url_tls"
    assert not other.pages.seen


def test_a_host_that_does_not_answer(site: Site, trusting: ssl.SSLContext) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        made = lambda: fetcher(site, trusting, hosts=f"localhost:{port}")  # noqa: E731
        (answer,) = run(made, f"https://localhost:{port}/image/1")
    assert code(answer) == "url_unreachable"


def test_something_that_is_not_https(trusting: ssl.SSLContext, site: Site) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def respond() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            peer.sendall(b"SSH-2.0-nothing\r\n")
            peer.close()

    thread = threading.Thread(target=respond)
    thread.start()
    (answer,) = run(lambda: fetcher(site, trusting, hosts=f"localhost:{port}"), f"https://localhost:{port}/")
    thread.join()
    listener.close()
    assert code(answer) in ("url_tls", "url_unreachable")


def test_by_default_the_machines_own_network_is_out_of_reach(site: Site, trusting: ssl.SSLContext) -> None:
    before = len(site.pages.seen)
    (answer,) = run(lambda: fetcher(site, trusting, rule=is_public), f"https://localhost:{site.port}/image/1")
    assert code(answer) == "url_not_allowed"
    assert "not a public one" in str(answer)
    assert len(site.pages.seen) == before


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Let `answer` say which addresses a name has."""

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in answer(host)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_one_address_that_is_not_public_among_others_is_enough(
    site: Site, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to several addresses, as an attacker's server would answer."""
    answering(monkeypatch, lambda _: ["127.0.0.1", "10.0.0.1"])
    (answer,) = run(lambda: fetcher(site, trusting), f"https://localhost:{site.port}/image/1")
    assert code(answer) == "url_not_allowed"


def test_the_connection_goes_to_the_address_that_was_checked(
    site: Site, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves differently the second time."""
    asked: list[str] = []

    def answer(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if asked.count("localhost") == 1 or host == "127.0.0.1" else "127.0.0.2"]

    answering(monkeypatch, answer)
    (found,) = run(lambda: fetcher(site, trusting), f"https://localhost:{site.port}/image/5")
    assert found == encoded(5)
    assert asked.count("localhost") == 1


def test_names_that_resolve_slowly_hold_up_nothing_else(
    site: Site, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readiness check and thumbnails run in the loop's own threads."""
    resolved, asked = threading.Event(), threading.Semaphore(0)

    def answer(_: str) -> list[str]:
        asked.release()
        resolved.wait(20)
        return ["127.0.0.1"]

    async def work() -> list[bytes | VsslError]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        links = [Link(f"https://localhost:{site.port}/image/1")] * AT_ONCE
        fetching = asyncio.create_task(fetcher(site, trusting).fetch(links, lambda _: None))
        try:
            for _ in range(AT_ONCE):  # until every look-up waits
                while not asked.acquire(blocking=False):
                    await asyncio.sleep(0.01)
            await asyncio.wait_for(asyncio.to_thread(int), 5)
        finally:
            resolved.set()
        return await fetching

    answering(monkeypatch, answer)
    assert asyncio.run(work()) == [encoded(1)] * AT_ONCE


def test_neither_proxies_nor_credentials_of_the_environment_are_used(
    site: Site, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (answer,) = run(lambda: fetcher(site, trusting), f"https://localhost:{site.port}/image/1")
    assert answer == encoded(1)
    assert set(site.pages.seen[-1]) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
