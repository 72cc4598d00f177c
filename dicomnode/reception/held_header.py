"""Some elements of a stored file, decoded one by one: what one of them is wrong in, costs that one and no other.

Every value here can be encoded again, in an answer to whoever asks.
"""

import logging
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.logs import is_uid
from dicomnode.network.scan import HeaderError, scan

log = logging.getLogger(__name__)

_CHARACTER_SET: Final = int(Tag("SpecificCharacterSet"))
_TRANSFER_SYNTAX: Final = 0x00020010
_LAST_OF_META: Final = 0x0002FFFF
#: Longer values are left out, bytes; a name in three scripts takes a fifth of it.
_LONGEST: Final = 1024
_META_START: Final = 144  # preamble, prefix, (0002,0000) with the length of group 2 (PS3.10 7.1)
_LONGEST_META: Final = 1 << 16


def read_elements(path: Path, wanted: Collection[int]) -> Dataset:
    """Return the wanted elements, and the character set that they need; empty where the file is none of DICOM.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            syntax = syntax_of(file)
            found = scan(file, syntax, {*wanted, _CHARACTER_SET}, max(wanted))
        except HeaderError as error:
            log.warning("%s cannot be searched: %s", path.name, error)
            return Dataset()
    header = Dataset()
    encodings = ["iso8859"]
    for tag, (vr, value) in sorted(found.items()):
        element = _decoded(BaseTag(tag), vr, value, syntax, encodings)
        if element is None:
            continue
        header[tag] = element
        if tag == _CHARACTER_SET:
            try:
                encodings = convert_encodings(element.value)
            except Exception:  # noqa: BLE001  (pydicom may raise anything)
                del header[tag]
    return header


def syntax_of(file: BinaryIO) -> UID:
    """Return the transfer syntax of a file, which then stands at its data set.

    Raises:
        HeaderError: it has no file meta information.
    """
    start = file.read(_META_START)
    length = int.from_bytes(start[-4:], "little")
    if start[128:132] != b"DICM" or len(start) < _META_START or length > _LONGEST_META:
        raise HeaderError("it does not start like a DICOM file")
    meta = scan(BytesIO(file.read(length)), ExplicitVRLittleEndian, {_TRANSFER_SYNTAX}, _LAST_OF_META)
    name = meta.get(_TRANSFER_SYNTAX, (b"", b""))[1].decode("latin-1").strip(" \0")
    syntax = UID(name)
    if not is_uid(name) or syntax.is_private or not syntax.is_transfer_syntax:
        raise HeaderError("its transfer syntax is unknown")
    return syntax


def _decoded(tag: BaseTag, vr: bytes, value: bytes, syntax: UID, encodings: Sequence[str]) -> DataElement | None:
    if len(value) > _LONGEST:
        return None
    little, implicit = bool(syntax.is_little_endian), bool(syntax.is_implicit_VR)
    raw = RawDataElement(tag, vr.decode("ascii") or None, len(value), value, 0, implicit, little)
    try:
        element = convert_raw_data_element(raw, encoding=list(encodings))
        uids = element.value if element.VM > 1 else [str(element.value or "1")]
        if element.VR == "UI" and not all(map(is_uid, uids)):
            return None
        written = DicomBytesIO()
        written.is_little_endian, written.is_implicit_VR = True, False
        write_data_element(written, element, list(encodings))
    except Exception:  # noqa: BLE001  (an unknown VR, a number that is none, a letter without a code: left out)
        return None
    return element
