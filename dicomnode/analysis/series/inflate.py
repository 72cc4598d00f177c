"""Deflated data sets (PS3.5 A.5) inflated up to a bound: 2 MB may stand for gigabytes.

pydicom inflates a whole file at once, wherever one is read. Importing this module puts a bounded inflation in its
place, for every reader in the process.
"""

import zlib
from typing import Final

import pydicom.filereader

#: No CT comes near: an enhanced one of 1,000 frames of 512 x 512 has half of it. Inflated bytes of one file.
MOST_BYTES: Final = 1 << 30


class InflatedTooLargeError(ValueError):
    """A deflated data set is larger than `MOST_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"the deflated data set is larger than {MOST_BYTES >> 30} GB")


class _Bounded:
    """What pydicom uses of zlib."""

    error = zlib.error
    MAX_WBITS = zlib.MAX_WBITS

    @staticmethod
    def decompress(data: bytes, wbits: int = zlib.MAX_WBITS) -> bytes:
        inflating = zlib.decompressobj(wbits)
        found = inflating.decompress(data, MOST_BYTES)
        if inflating.unconsumed_tail:
            raise InflatedTooLargeError
        found += inflating.flush(1 << 16)
        if not inflating.eof:
            raise zlib.error("incomplete or truncated stream")
        return found


pydicom.filereader.zlib = _Bounded  # type: ignore[attr-defined, assignment]
