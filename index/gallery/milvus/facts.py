"""What describes a gallery in Milvus <-> a small collection of named texts.

A long text, such as what was fitted to the gallery, is kept in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from index.calibration.fit import Fitting
from index.gallery.milvus.encoding import Encoding
from index.gallery.milvus.schema import create_facts, milvus_errors
from index.gallery.protocol import GALLERY_FORMAT
from vssl.errors import FormatError, InputError

PIECE = 16_000  # characters of a text; Milvus takes 65,535 bytes
FITTING = "fitting."


class RemoteFacts:
    """The named texts of one gallery, as this client knows them, and as Milvus keeps them."""

    def __init__(self, client: Any, uri: str, name: str, texts: dict[str, str]) -> None:
        self._client = client
        self._uri = uri
        self._name = f"{name}_facts"
        self._texts = texts
        if texts.get("format") != str(GALLERY_FORMAT):
            raise FormatError(
                f"{uri}#{name}: found gallery format {texts.get('format')}, expected {GALLERY_FORMAT}; "
                "move the gallery there again: vssl gallery move GALLERY milvus:URI#NAME"
            )

    @classmethod
    def create(
        cls, client: Any, uri: str, name: str, texts: Mapping[str, str], fitting: Fitting | None
    ) -> RemoteFacts:
        """Make the collection, replacing one that is there."""
        with milvus_errors(uri):
            if client.has_collection(f"{name}_facts"):
                client.drop_collection(f"{name}_facts")
            create_facts(client, f"{name}_facts")
        first = {"format": str(GALLERY_FORMAT), "generation": "0", "next_row": "1", **texts}
        text = fitting.to_json() if fitting is not None else ""
        for start in range(0, len(text), PIECE):
            first[f"{FITTING}{start // PIECE}"] = text[start : start + PIECE]
        facts = cls(client, uri, name, first)
        facts.write(first)
        return facts

    @classmethod
    def read(cls, client: Any, uri: str, name: str) -> RemoteFacts:
        """Read them all. Raises InputError when there is no gallery of that name, and closes the client."""
        with milvus_errors(uri):
            if not client.has_collection(f"{name}_facts"):
                client.close()
                raise InputError(
                    f"{uri} holds no gallery {name!r}; put one there with: "
                    f"vssl gallery move GALLERY milvus:{uri}#{name}"
                )
            client.load_collection(f"{name}_facts")
            found = client.query(f"{name}_facts", filter="", limit=1000, output_fields=["name", "value"])
        return cls(client, uri, name, {entry["name"]: entry["value"] for entry in found})

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def get(self, name: str) -> str | None:
        """Return a text, or None."""
        return self._texts.get(name)

    @property
    def generation(self) -> int:
        """How many writes the gallery has seen through this client."""
        return int(self._texts["generation"])

    def write(self, texts: Mapping[str, str]) -> None:
        """Write texts, here and in Milvus."""
        self._texts.update(texts)
        entries = [{"name": name, "value": value, "nothing": [0.0, 0.0]} for name, value in texts.items()]
        with milvus_errors(self._uri):
            self._client.upsert(self._name, entries)

    def wrote(self, **texts: str) -> None:
        """Write texts together with the next generation."""
        self.write({**texts, "generation": str(self.generation + 1)})

    def fitting(self) -> Fitting | None:
        """Return what was fitted to the gallery, or None."""
        names = [name for name in self._texts if name.startswith(FITTING)]
        names.sort(key=lambda name: int(name.removeprefix(FITTING)))
        return Fitting.from_json("".join(self._texts[name] for name in names)) if names else None

    def encoding(self) -> Encoding | None:
        """Return the encoding of the gallery's distance, None before the first items."""
        return Encoding.from_texts(self["distance"], self._texts)
