"""How many samples a compressed frame says it has: its decoder makes room for those, whatever the data set says.

JPEG and JPEG-LS say so in their frame header (ITU-T T.81 B.2.2, T.87 C.2.2), JPEG 2000 in its SIZ marker (T.800 A.5.1).
"""

from typing import Final

_START_OF_IMAGE: Final = b"\xff\xd8"
_SIZ: Final = b"\xff\x4f\xff\x51"
_SIZ_LENGTH: Final = 42
#: SOF0 to SOF15 without DHT, JPG and DAC, and that of JPEG-LS.
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_START_OF_SCAN: Final = 0xDA
#: Markers without a length.
_ALONE: Final = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))


def samples(frame: bytes) -> int:
    """Return rows x columns x components; 0 where the frame says nothing of them."""
    if frame.startswith(_START_OF_IMAGE):
        return _of_jpeg(frame)
    at = frame.find(_SIZ)
    if at < 0 or len(frame) < at + _SIZ_LENGTH:
        return 0
    columns, rows, left, top = (int.from_bytes(frame[at + n : at + n + 4], "big") for n in (8, 12, 16, 20))
    return max(0, columns - left) * max(0, rows - top) * int.from_bytes(frame[at + 40 : at + 42], "big")


def _of_jpeg(frame: bytes) -> int:
    at = 2
    while (at := frame.find(b"\xff", at)) >= 0 and at + 10 <= len(frame):  # what is between is skipped by decoders too
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = (int.from_bytes(frame[at + n : at + n + 2], "big") for n in (5, 7))
            return rows * columns * frame[at + 9]
        if marker == _START_OF_SCAN:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return 0
