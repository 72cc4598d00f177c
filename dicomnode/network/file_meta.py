"""The file meta information in front of a received dataset (PS3.10 section 7.1).

pydicom writes the same bytes (a test compares) in a third of a millisecond; one image's whole budget is about two.
"""

import struct

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

_PREAMBLE = b"\0" * 128 + b"DICM"


def encode(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: UID) -> bytes:
    """Preamble, prefix and group 0002, Explicit VR Little Endian."""
    group = b"".join(
        (
            b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01",
            _short(0x0002, b"UI", sop_class_uid, b"\0"),
            _short(0x0003, b"UI", sop_instance_uid, b"\0"),
            _short(0x0010, b"UI", transfer_syntax, b"\0"),
            _short(0x0012, b"UI", PYNETDICOM_IMPLEMENTATION_UID, b"\0"),
            _short(0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION, b" "),
        )
    )
    return _PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(group)) + group


def _short(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("latin-1", "replace")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
