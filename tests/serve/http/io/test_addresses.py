"""Which hosts and addresses may be fetched from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.io.addresses import AllowList, is_public
from vssl.errors import InputError


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "2001:db8::1",
        "2001:0:4136:e378::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_what_is_not_of_the_public_internet_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_and_its_mapped_form_are_judged_alike(address: ipaddress.IPv4Address) -> None:
    assert is_public(address) == is_public(ipaddress.ip_address(f"::ffff:{address}"))
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


def test_a_list_names_hosts_ports_and_what_lies_below_a_name() -> None:
    hosts = AllowList.parse("images.example.org, Files.example.org:8443,*.cdn.example.net")
    assert hosts.allows("images.example.org", 443)
    assert hosts.allows("files.example.org", 8443)
    assert hosts.allows("a.cdn.example.net", 443)
    assert hosts.allows("a.b.cdn.example.net", 443)
    for host, port in (
        ("images.example.org", 8443),
        ("files.example.org", 443),
        ("example.org", 443),
        ("x.images.example.org", 443),
        ("cdn.example.net", 443),
        ("evilcdn.example.net", 443),
        ("images.example.org.evil.net", 443),
    ):
        assert not hosts.allows(host, port)


@pytest.mark.parametrize(
    "text", ["", " , ", "*", "https://a.org", "a.org/x", "a.org:0", "a.org:99999", "a b", "*.*"]
)
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="fetch hosts"):
        AllowList.parse(text)
