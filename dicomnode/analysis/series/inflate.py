"""Deflated data sets (PS3.5 A.5) inflated up to a bound: 2 MB may stand for gigabytes.

pydicom inflates a whole file at once, wherever one is read. Importing this module puts a bounded inflation in its
place, for every reader in the process.
"""

import zlib
from typing import Final

import pydicom.filereader

#: No CT comes near: an enhanced one of 1,000 frames of 512 x 512 has half of it. Inflated bytes of one file.
MOST_BYTES: Final = 1 << 30
#: Deflate packs no more bytes than this into one (RFC 1951: 258 in two bits).
_MOST_RATIO: Final = 1032
_PIECE: Final = 1 << 20


class InflatedTooLargeError(ValueError):
    """A deflated data set is larger than `MOST_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"the deflated data set is larger than {MOST_BYTES >> 30} GB")


class _BoundedZlib:
    """What pydicom uses of zlib."""

    error = zlib.error
    MAX_WBITS = zlib.MAX_WBITS

    @staticmethod
    def decompress(data: bytes, wbits: int = zlib.MAX_WBITS) -> bytes:
        if len(data) * _MOST_RATIO > MOST_BYTES:
            _count(data, wbits)
        return zlib.decompress(data, wbits)


def _count(data: bytes, wbits: int) -> None:
    """Raise InflatedTooLargeError where it is too large, without keeping any of it."""
    inflating, found, rest = zlib.decompressobj(wbits), 0, data
    while rest and not inflating.eof:
        found += len(inflating.decompress(rest, _PIECE))
        rest = inflating.unconsumed_tail
        if found > MOST_BYTES:
            raise InflatedTooLargeError


pydicom.filereader.zlib = _BoundedZlib  # type: ignore[attr-defined, assignment]
