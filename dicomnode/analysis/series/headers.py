"""Headers of DICOM files: read without pixels, checked for completeness, and left raw.

Whoever reads a header gets it from here, with its values settled (`values`): each is valid for its VR, or not there.
The reports copy patient-level elements byte for byte from the raw elements, so nothing here converts a valid element in
place: `strings` and `number` look at the bytes and leave them as they came.
"""

import os
import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import TEXT_VR_DELIMS

from dicomnode.analysis.findings import Reason
from dicomnode.analysis.series import multiframe, repeatable
from dicomnode.analysis.series.inflate import InflatedTooLargeError
from dicomnode.analysis.series.values import Doubt, settle
from dicomnode.errors import RefusedError

#: Elements above this size (private blobs of some vendors) stay on the disk.
DEFER_BYTES = 65536
PIXELS = 0x7FE00010
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, PIXELS})
_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
ITEM, SEQUENCE_DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
UNDEFINED_LENGTH = 0xFFFFFFFF
#: What makes a multi-frame image; in a single one it is a mistake.
_OF_MULTI_FRAMES = ("NumberOfFrames", "DimensionIndexSequence", "DimensionOrganizationSequence")


@dataclass(frozen=True)
class ImageHeader:
    """One image: a readable DICOM file, or one frame of an enhanced multi-frame CT (`multiframe`).

    Attributes:
        dataset: the attributes, without pixel data; those of a frame stand where a single-frame image has them.
        missing_bytes: so much of the file's pixels is not in the file.
        frame_number: counts from 1; None for a whole file.
        image: the whole multi-frame image that a frame is of, without pixel data.
        doubts: attributes whose values break their VR, in this header.
        pixels: where in the file the pixel data of a native image lie: offset and bytes; None: not known.
    """

    path: Path
    dataset: Dataset
    missing_bytes: int = 0
    frame_number: int | None = None
    image: Dataset | None = None
    doubts: tuple[Doubt, ...] = ()
    pixels: tuple[int, int] | None = None

    @property
    def source(self) -> Dataset:
        """The data set as it stands in the file: what reports refer to and copy from."""
        return self.dataset if self.image is None else self.image


@dataclass(frozen=True)
class Unreadable:
    """A file that is no complete DICOM file, and why."""

    path: Path
    reason: Reason


@dataclass(frozen=True)
class Series:
    """The images of one series, or of one part of it (`parts`), in the order in which they were given.

    Attributes:
        part: which part of the series this is, in words; "" for a whole series.
        copies: images that were left out because the same image at the same place is there.
    """

    series_uid: str
    study_uid: str
    modality: str
    headers: tuple[ImageHeader, ...]
    part: str = ""
    copies: int = 0


def find_files(folder: Path) -> list[Path]:
    """All files under `folder`, sorted by path, without hidden ones and without DICOMDIR."""
    return sorted(_visible(folder))


def is_ignored(name: str, *, is_folder: bool = False) -> bool:
    """Whether a file, or a folder with all that is in it, is passed over: it is hidden, or a DICOMDIR file."""
    return name.startswith(".") or (not is_folder and name.upper() == "DICOMDIR")


def read_headers(paths: Iterable[Path]) -> tuple[list[ImageHeader], list[Unreadable]]:
    """Return the headers of the files that are DICOM, in the order given, and the others with their reasons.

    An enhanced multi-frame CT gives one header for each of its frames.
    """
    headers: list[ImageHeader] = []
    unreadable: list[Unreadable] = []
    with warnings.catch_warnings():
        # pydicom warns of each odd value while it parses; what matters of it is judged later, with a reason.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        for path in paths:
            found = _read(Path(path))
            if isinstance(found, ImageHeader):
                headers.extend(_frames(found))
            else:
                unreadable.append(Unreadable(Path(path), found))
    return headers, unreadable


def read_source(path: Path) -> Dataset:
    """Return the header of one file, as reports refer to it: a multi-frame image stays whole.

    What no valid object may repeat of patient, study and order is not in it, save what names the patient and the order
    (`repeatable.keep`).

    Raises:
        RefusedError: the file is no readable DICOM file (the codes are those of `read_headers`).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        found = _read(path)
        if isinstance(found, Reason):
            raise RefusedError(found.code, found.text)
        source = _frames(found)[0].source
        repeatable.keep(source)
        if string(source, "SOPClassUID") not in multiframe.ENHANCED_CT:
            for keyword in (*multiframe.GROUPS, *_OF_MULTI_FRAMES):
                source.pop(keyword, None)
        return source


def text(dataset: Dataset, keyword: str) -> str:
    """All values of a text element as one text, decoded by the Specific Character Set. The element stays raw.

    For comparing words only: what cannot be decoded is read as Latin-1.
    """
    element = _element(dataset, keyword)
    value = None if element is None else element.value
    if not isinstance(value, bytes):
        return " ".join(strings(dataset, keyword))
    try:
        with warnings.catch_warnings():
            # An unknown character set is no reason to stop: the bytes are then read as they are.
            warnings.simplefilter("ignore")
            encodings = convert_encodings(strings(dataset, "SpecificCharacterSet") or "ISO_IR 6")
            return decode_bytes(value, encodings, TEXT_VR_DELIMS).replace("\\", " ").strip(" \0")
    except (LookupError, UnicodeError, ValueError):
        return value.decode("latin-1").strip(" \0")


#: Letters that have no accent to take off: with a stroke, two in one, and the i without a dot of Turkish, whose capital
#: is a plain I («SIRTÜSTÜ»); the dot of its capital İ is an accent as any other.
_WITHOUT_ACCENT = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ß": "ss", "\u0131": "i"})


def plain(words: str) -> str:
    """Lower-case words without accents, one space between them: what the patterns are searched in."""
    letters = (c for c in unicodedata.normalize("NFKD", words.lower()) if not unicodedata.combining(c))
    whole = unicodedata.normalize("NFC", "".join(letters))  # Hangul must be whole again
    return re.sub(r"[\W\d_]+", " ", whole.translate(_WITHOUT_ACCENT))


def strings(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of a string element, stripped; [] where it is absent or empty. The element stays raw.

    Text is read as Latin-1: the callers compare ASCII words, numbers and UIDs only.
    """
    element = _element(dataset, keyword)
    value = None if element is None else element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        values = value.decode("latin-1").split("\\")
    else:
        values = [str(v) for v in value] if isinstance(value, (MultiValue, list, tuple)) else [str(value)]
    stripped = [v.strip(" \0") for v in values]
    return stripped if any(stripped) else []


def string(dataset: Dataset, keyword: str) -> str:
    """Return the first value of a string element, "" where there is none."""
    return next(iter(strings(dataset, keyword)), "")


def number(dataset: Dataset, keyword: str) -> int | None:
    """Return the value of an element of VR US, None where it is absent or empty. The element stays raw."""
    element = _element(dataset, keyword)
    if isinstance(element, RawDataElement):
        raw = element.value or b""
        return int.from_bytes(raw, "little" if element.is_little_endian else "big") if len(raw) == 2 else None
    return element.value if element is not None and isinstance(element.value, int) else None


def identifier(dataset: Dataset, keyword: str) -> bytes:
    """Return the bytes of an identifier without its padding, b"" where it is absent.

    They are for comparing, in any character set.
    """
    element = _element(dataset, keyword)
    value = None if element is None else element.value
    return (value if isinstance(value, bytes) else str(value or "").encode()).strip(b" \0")


def _element(dataset: Dataset, key: str | BaseTag) -> RawDataElement | DataElement | None:
    """Return an element, and None for one that the file gives as a sequence: it holds no value that is looked for."""
    element = cast(RawDataElement | DataElement, dataset.get_item(key)) if key in dataset else None
    return None if element is not None and isinstance(element.value, Sequence) else element


def _visible(folder: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not is_ignored(f, is_folder=True)]
        yield from (Path(directory, n) for n in names if not is_ignored(n))


def _frames(header: ImageHeader) -> list[ImageHeader]:
    """One header for each frame of an enhanced CT. Where its functional groups are not usable it stays one: refused."""
    if string(header.dataset, "SOPClassUID") not in multiframe.ENHANCED_CT:
        return [header]
    try:
        image, frames, doubts = multiframe.read(header.path, header.dataset.file_meta.TransferSyntaxUID)
    except Exception:  # noqa: BLE001 - as in `_read`: whatever a damaged file provokes
        return [header]
    return [
        ImageHeader(header.path, frame, header.missing_bytes, number, image, doubts)
        for number, frame in enumerate(frames, start=1)
    ]


def _read(path: Path) -> ImageHeader | Reason:
    try:
        with path.open("rb") as file:
            return _parse(path, file)
    except OSError as error:
        return Reason("unreadable", f"The file cannot be read: {error.strerror}.")
    except InflatedTooLargeError as error:
        return Reason("too-large", f"The file is refused: {error}.")
    except zlib.error:
        return Reason("truncated", "The deflated data set cannot be inflated: the file is truncated or damaged.")
    except Exception as error:  # noqa: BLE001 - whatever a damaged file provokes in the parser must not stop the rest
        return Reason("not-dicom", f"The file cannot be parsed as DICOM ({type(error).__name__}).")


def _parse(path: Path, file: BinaryIO) -> ImageHeader | Reason:
    pixel_length = pixels = None

    def at_pixel_data(tag: BaseTag, _vr: str | None, length: int) -> bool:
        nonlocal pixel_length, pixels
        if tag in PIXEL_DATA:
            pixel_length = length
        if tag == PIXELS:
            pixels = file.tell(), length
        return tag in PIXEL_DATA

    has_preamble = file.read(132)[128:] == b"DICM"
    file.seek(0)
    dataset = read_partial(file, at_pixel_data, defer_size=DEFER_BYTES, force=True)
    _set_syntax(dataset)
    deflated = dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    if deflated:
        # pydicom would keep the whole inflated file, pixels too, as long as the header lives.
        dataset.buffer = None

    size, end = path.stat().st_size, _end_of_elements(dataset)
    doubts = settle(dataset)
    reason = _implausible(dataset, has_preamble)
    if reason is None and not deflated and end > size:
        reason = Reason("truncated", "The file is truncated before its pixel data.")
    if reason is not None:
        return reason
    missing = _missing_bytes(file, dataset, pixel_length, size, deflated)
    native = dataset.file_meta.TransferSyntaxUID in _NATIVE
    whole = native and not missing and pixel_length not in (0, UNDEFINED_LENGTH)
    return ImageHeader(path, dataset, missing, doubts=doubts, pixels=pixels if whole else None)


def _set_syntax(dataset: FileDataset) -> None:
    """Write down the native syntax that was guessed for a file without File Meta Information."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = native


def _implausible(dataset: Dataset, has_preamble: bool) -> Reason | None:
    sop_class = string(dataset, "SOPClassUID")
    if not has_preamble and not (sop_class.startswith("1.2.840.10008.5.1.4.") and string(dataset, "SOPInstanceUID")):
        return Reason("not-dicom", "The file has neither a DICOM preamble nor SOP Class and SOP Instance UIDs.")
    uids = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    missing = [uid for uid in uids if not string(dataset, uid)]
    if missing:
        return Reason(
            "missing-uids", f"The file has no valid {', '.join(missing)}: truncated or not a composite object."
        )
    return None


def _end_of_elements(dataset: Dataset) -> int:
    """Where the last element of defined length ends in the file, by its declared length."""
    raw = (_element(dataset, tag) for tag in list(dataset.keys()))
    ends = (
        e.value_tell + e.length
        for e in raw
        if isinstance(e, RawDataElement) and e.length != UNDEFINED_LENGTH and e.value_tell
    )
    return max(ends, default=0)


def _missing_bytes(file: BinaryIO, dataset: Dataset, declared: int | None, size: int, deflated: bool) -> int:
    """How many bytes of pixel data the file lacks, at least, without reading the pixels."""
    if declared == UNDEFINED_LENGTH:
        return _missing_fragments(file, size)
    rows, columns, bits = (number(dataset, k) for k in ("Rows", "Columns", "BitsAllocated"))
    if rows is None or columns is None or bits is None:
        # An object without pixels, unless it says that it is a CT image: then its end is not there.
        return 1 if declared is None and string(dataset, "SOPClassUID") == CTImageStorage else 0
    samples = number(dataset, "SamplesPerPixel") or 1
    frames = string(dataset, "NumberOfFrames")
    needed = (rows * columns * samples * (int(frames) if frames.isdecimal() else 1) * bits + 7) // 8
    if declared is None:
        return needed
    # Before the value stand tag and length (8 bytes in implicit VR), or tag, VR and length (12 bytes for OB and OW).
    start = file.tell() + (8 if dataset.original_encoding[0] else 12)
    present = declared if deflated else min(declared, size - start)
    return max(0, needed - present)


def _missing_fragments(file: BinaryIO, size: int) -> int:
    """Bytes missing from encapsulated pixel data (PS3.5 A.4): a walk over its items up to the sequence delimiter."""
    file.seek(12, os.SEEK_CUR)
    items = 0
    while len(head := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == SEQUENCE_DELIMITER:
            return 0
        if (group, element) != ITEM:
            return 1
        items += 1
        if file.seek(length, os.SEEK_CUR) > size:
            return file.tell() - size
    # Some writers forget the delimiter; with the offset table and whole fragments there, nothing is lost.
    return 0 if not head and items >= 2 else 1
