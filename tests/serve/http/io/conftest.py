"""An https server on loopback, and a client's trust in its certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.serve.http.https_site import Site


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def site(authority: trustme.CA) -> Iterator[Site]:
    site = Site(authority, "localhost")
    yield site
    site.close()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
