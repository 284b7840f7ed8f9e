"""An allow-list and an address -> whether something may be fetched from there.

A server that fetches any URL a client sends can be made to read its own network (SSRF). So hosts are named by
the operator, and each address that a host's name resolves to must be one of the public internet.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from vssl.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressRule = Callable[[Address], bool]

_HOST = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
# 6to4, Teredo and NAT64 carry an IPv4 address that the network in between would go to.
_TUNNELS = tuple(
    ipaddress.ip_network(n) for n in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")
)


@dataclass(frozen=True)
class AllowList:
    """Hosts that may be fetched from: names, `*.name` for what lies below, each with the port (443)."""

    entries: frozenset[tuple[str, int]]

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Parse HOST[:PORT],...; raises InputError for anything else."""
        entries = set()
        for part in filter(None, (part.strip().lower() for part in text.split(","))):
            host, _, port = part.partition(":")
            if not _HOST.fullmatch(host) or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
                raise InputError(
                    f"fetch hosts: found {part!r}, expected HOST, HOST:PORT or *.HOST, several with commas between"
                )
            entries.add((host, int(port or 443)))
        if not entries:
            raise InputError("fetch hosts: found none, expected HOST,...; leave it out to fetch nothing")
        return cls(frozenset(entries))

    def allows(self, host: str, port: int) -> bool:
        """Tell whether this host (lower case) and port are on the list."""
        labels = host.split(".")
        names = [host, *("*." + ".".join(labels[n:]) for n in range(1, len(labels)))]
        return any((name, port) in self.entries for name in names)


def is_public(address: Address) -> bool:
    """Tell whether an address is one host's of the public internet.

    Refused are private, shared, loopback, link-local, multicast, reserved and unspecified ones, and
    IPv6 addresses that stand for an IPv4 address unless that one is public and plainly mapped.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id or address.is_site_local or any(address in net for net in _TUNNELS):
            return False
    return (
        address.is_global
        and not address.is_private
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_loopback
        and not address.is_link_local
        and not address.is_unspecified
    )
