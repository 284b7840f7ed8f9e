"""triton://HOST:PORT/MODEL/VERSION -> its parts, or what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.inference.backends.triton import parse_address
from serve.inference.engine import Engine
from vssl.errors import InputError


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("triton://host:9001/pets", ("host:9001", "pets", None)),
            ("triton://host/pets", ("host:8001", "pets", None)),
            ("triton://[::1]:9001/pets/3", ("[::1]:9001", "pets", 3)),
            (Path("triton://host:9001/pets/12"), ("host:9001", "pets", 12)),
        ],
    )
    def test_host_port_model_and_version(self, text: str, parts: tuple[str, str, int | None]) -> None:
        address = parse_address(text)
        assert (address.host, address.model, address.version) == parts
        assert parse_address(str(address)) == address

    @pytest.mark.parametrize(
        "text",
        [
            "triton://",
            "triton://host",
            "triton://host:port/pets",
            "triton://host/pets/x",
            "triton://host/pets/0",
            "triton://host/a/1/b",
            "triton://host/pets?x=1",
            "triton://me@host/pets",
        ],
    )
    def test_anything_else_says_what_is_expected(self, text: str) -> None:
        with pytest.raises(InputError, match="expected triton://HOST:PORT/MODEL"):
            Engine.open(text)
