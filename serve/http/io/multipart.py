"""A multipart/form-data body -> its parts, all of them or an error: a cut body is never taken for a whole one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve.http.errors import RequestError, invalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

IMAGES = "images"
MAX_FIELDS = 64
MAX_FIELD_BYTES = 2**20
MAX_PART_HEAD = 16 * 1024
EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([\w!#$%&+^`{}~-]*)'[^']*'([^;\"]*)", re.IGNORECASE)
"""A file name with its character set, as RFC 8187 writes it: filename*=UTF-8''caf%C3%A9.jpg."""


@dataclass
class Part:
    """One part: its head's lines by lower-case name, and its bytes."""

    head: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """The bytes of the part."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    @property
    def name(self) -> str:
        """The form field's name, empty without one."""
        return self._option(b"name") or ""

    @property
    def filename(self) -> str | None:
        """The file's name, in whichever of two ways it is written; None without one."""
        found = EXTENDED.search(self.head.get("content-disposition", ""))
        if found is not None:
            try:
                return unquote(found[2], encoding=found[1] or "utf-8", errors="replace")
            except LookupError:  # an unknown character set: the name as it came
                return found[2]
        return self._option(b"filename")

    @property
    def is_file(self) -> bool:
        """Whether it is a file, not a field's text: it has a file's name, or is what images are sent as."""
        return self.filename is not None or self.name == IMAGES

    def _option(self, name: bytes) -> str | None:
        _, options = parse_options_header(self.head.get("content-disposition", "").encode("latin-1"))
        value = options.get(name)
        return None if value is None else value.decode("utf-8", "replace")


def read_parts(body: bytes, content_type: bytes, *, most: int, too_many: RequestError) -> list[Part]:
    """Return the parts of a whole body.

    most: files; beyond it `too_many` is raised. Raises RequestError 400 for a body without a boundary, one that
    is no multipart body, and one that ends before its closing boundary.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise invalid(
            "multipart body: the Content-Type names no boundary; expected multipart/form-data; boundary=..."
        )
    reader = _Reader(most, too_many)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise invalid(f"multipart body: {error}") from None
    if not reader.ended:
        raise invalid("multipart body: it ends before its closing boundary; send all of it")
    return reader.parts


class _Reader:
    """Collects what the parser reports."""

    def __init__(self, most: int, too_many: RequestError) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._most, self._too_many = most, too_many
        self._files = 0
        self._name, self._value, self._size = bytearray(), bytearray(), 0

    def callbacks(self) -> MultipartCallbacks:
        """Return what to call, by the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self.parts[-1].chunks.append(data[start:end]),
            "on_header_field": lambda data, start, end: self._add(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headed,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.parts.append(Part())
        self._size = 0

    def _add(self, to: bytearray, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_PART_HEAD:
            raise invalid(f"multipart body: a part's head exceeds {MAX_PART_HEAD} bytes")
        to += data

    def _header(self) -> None:
        name = self._name.decode("latin-1").lower()
        self.parts[-1].head[name] = self._value.decode("latin-1")
        self._name, self._value = bytearray(), bytearray()

    def _headed(self) -> None:
        self._files += self.parts[-1].is_file
        if self._files > self._most:
            raise self._too_many
        if len(self.parts) - self._files > MAX_FIELDS:
            raise invalid(f"multipart body: found over {MAX_FIELDS} fields, expected at most {MAX_FIELDS}")

    def _end(self) -> None:
        self.ended = True
