"""Bodies in parts, read as they come (RFC 2046 5.1): memory holds a piece, never a part."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

#: Of what stands before the first boundary, and of a part's head.
_LONGEST_HEAD: Final = 8_192
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_CRLF: Final = b"\r\n"


class MultipartError(ValueError):
    """The body is not what its Content-Type says. The text repeats nothing of it."""


@dataclass(frozen=True)
class Piece:
    """A part begins (`head`: its header fields), a piece of its content, or its end."""

    kind: Literal["begin", "data", "end"]
    data: bytes = b""
    head: tuple[tuple[str, str], ...] = ()

    def field(self, name: str) -> str:
        """Return a header field; "" where there is none."""
        return next((value for one, value in self.head if one == name), "")


class MultipartReader:
    """Takes a body piece by piece. `ended`: the closing boundary has come."""

    def __init__(self, boundary: str) -> None:
        """Begin; raises MultipartError: it is no boundary."""
        if not _BOUNDARY.fullmatch(boundary):
            raise MultipartError("the Content-Type names no boundary, or one that is none")
        self._delimiter = _CRLF + b"--" + boundary.encode("ascii")
        # The first boundary may stand at the very beginning.
        self._left = bytearray(_CRLF)
        self._state: Literal["preamble", "line", "head", "body", "ended"] = "preamble"

    @property
    def ended(self) -> bool:
        """Whether all parts are there."""
        return self._state == "ended"

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield what a piece of the body brings. Raises MultipartError."""
        self._left += data
        going = True
        while going:
            going = False
            step = {"preamble": self._preamble, "line": self._line, "head": self._head, "body": self._body}.get(
                self._state
            )
            if step is None:
                self._left.clear()  # an epilogue is nobody's
                return
            for piece in step():
                if piece is not None:
                    yield piece
                else:
                    going = True

    def _preamble(self) -> Iterator[Piece | None]:
        at = self._left.find(self._delimiter)
        if at >= 0:
            del self._left[: at + len(self._delimiter)]
            self._state = "line"
            yield None
        elif len(self._left) > _LONGEST_HEAD:
            raise MultipartError("no boundary stands at the beginning of the body")

    def _line(self) -> Iterator[Piece | None]:
        """Read what is behind a boundary: two hyphens, or white space and the end of the line."""
        if self._left.startswith(b"--"):
            self._state = "ended"
            yield None
            return
        at = self._left.find(_CRLF)
        if at < 0 or self._left[:at].strip(b" \t"):
            if at >= 0 or len(self._left) > _LONGEST_HEAD:
                raise MultipartError("a boundary is followed by other words")
            return
        del self._left[:at]  # its line's end may be that of an empty head
        self._state = "head"
        yield None

    def _head(self) -> Iterator[Piece | None]:
        at = self._left.find(_CRLF + _CRLF)
        if at < 0 or at > _LONGEST_HEAD:
            if len(self._left) > _LONGEST_HEAD:
                raise MultipartError(f"a part's head is longer than {_LONGEST_HEAD} bytes")
            return
        lines = bytes(self._left[:at]).decode("latin-1").split("\r\n")
        # The boundary in front of the content needs its line's end, also where there is no content.
        del self._left[: at + 2]
        self._state = "body"
        pairs = (line.partition(":") for line in lines if ":" in line)
        yield Piece("begin", head=tuple((name.strip().lower(), value.strip()) for name, _, value in pairs))
        self._at_start = True
        yield None

    _at_start = False

    def _body(self) -> Iterator[Piece | None]:
        skip = 2 if self._at_start else 0  # the end of the head's last line, which may begin a boundary
        at = self._left.find(self._delimiter)
        if at >= 0:
            if content := bytes(self._left[skip:at]):
                yield Piece("data", content)
            del self._left[: at + len(self._delimiter)]
            self._state = "line"
            yield Piece("end")
            yield None
            return
        sure = len(self._left) - len(self._delimiter)
        if sure > skip:
            yield Piece("data", bytes(self._left[skip:sure]))
            del self._left[:sure]
            self._at_start = False
