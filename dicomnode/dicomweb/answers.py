"""Answers in parts (RFC 2387, PS3.18 8.6.1.2), one after another: memory does not grow with their number."""

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from starlette.responses import StreamingResponse

from dicomnode.dicomweb.media import RELATED

_CHUNK: Final = 256 << 10

#: The media type of a part, and its bytes.
Part = tuple[str, Iterable[bytes]]


def in_parts(inner: str, parts: Iterator[Part]) -> StreamingResponse:
    """Return an answer of parts; the first is made at once, so that what is wrong with it can still be told."""
    boundary = secrets.token_hex(16)
    first = next(parts, None)

    def content() -> Iterator[bytes]:
        part = first
        while part is not None:
            kind, chunks = part
            yield f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode("latin-1")
            yield from chunks
            yield b"\r\n"
            part = next(parts, None)
        yield f"--{boundary}--\r\n".encode()

    return StreamingResponse(content(), media_type=f'{RELATED}; type="{inner}"; boundary={boundary}')


def chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
