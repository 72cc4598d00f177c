"""WADO-RS (PS3.18 10.4): objects, metadata, frames and bulk data, in the form that the client accepts."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import FileDataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from starlette.responses import Response, StreamingResponse

from dicomnode.dicomweb import files, json_model
from dicomnode.dicomweb.answers import Part, chunks, in_parts
from dicomnode.dicomweb.media import ANY, DICOM, JSON, OCTETS, MediaRange
from dicomnode.dicomweb.problems import WebError, not_acceptable, not_found
from dicomnode.dicomweb.search import instance_url
from dicomnode.reception.holdings import Held

#: Of a request for frames.
MOST_FRAMES: Final = 2_000
#: What a compressed frame is called (PS3.18 table 8.7.3-5).
_NAMES: Final[dict[UID, str]] = {
    JPEGBaseline8Bit: "image/jpeg", JPEGExtended12Bit: "image/jpeg", JPEGLossless: "image/jpeg",
    JPEGLosslessSV1: "image/jpeg", JPEGLSLossless: "image/jls", JPEGLSNearLossless: "image/jls",
    JPEG2000Lossless: "image/jp2", JPEG2000: "image/jp2", HTJ2KLossless: "image/jphc",
    HTJ2KLosslessRPCL: "image/jphc", HTJ2K: "image/jphc", RLELossless: "image/dicom-rle",
}  # fmt: skip
_PIXEL_DATA: Final = "7FE00010"
_APPLICATION: Final = "application/*"


def objects(held: Sequence[Held], accept: Sequence[MediaRange]) -> Response:
    """Return the objects, as stored or in Explicit VR Little Endian.

    Args:
        held: one or more.
        accept: what the client takes.

    Raises:
        WebError: 406: nothing that it takes can be given; 404: a file has gone.
    """
    stored = {one.path: files.syntax(one) for one in held}
    for wanted in accept:
        if wanted.kind not in (DICOM, ANY, _APPLICATION):
            continue
        if not wanted.in_parts and len(held) > 1:
            continue
        target = _target(wanted, set(stored.values()))
        if target is None:
            continue
        parts = (_object(one, stored[one.path], target) for one in held)
        if wanted.in_parts:
            return in_parts(DICOM, parts)
        kind, content = next(parts)
        return StreamingResponse(iter(content), media_type=kind)
    raise not_acceptable(
        'ask for multipart/related; type="application/dicom" with transfer-syntax=* (as stored) or '
        f"{ExplicitVRLittleEndian} (decoded), or application/dicom for one instance"
    )


def _target(wanted: MediaRange, stored: set[UID]) -> str | None:
    """Return "*" for as stored, or the syntax to change to; None: it cannot be (PS3.18 8.7.3.5.2)."""
    asked = wanted.transfer_syntax or ("*" if wanted.kind == ANY else str(ExplicitVRLittleEndian))
    if asked == "*" or stored == {asked}:
        return "*"
    return asked if asked == ExplicitVRLittleEndian else None


def _object(one: Held, stored: UID, target: str) -> Part:
    if target in ("*", stored):
        return f"{DICOM}; transfer-syntax={stored}", chunks(one.path)
    return f"{DICOM}; transfer-syntax={target}", [files.explicit(one)]


def metadata(held: Sequence[Held], accept: Sequence[MediaRange], base: str) -> Response:
    """Return what the objects' headers say, as DICOM JSON; pixels and other long values by their URI."""
    if not any(one.kind in (JSON, "application/json", ANY, _APPLICATION) for one in accept):
        raise not_acceptable(f"metadata are given as {JSON}")

    def content() -> Iterator[str]:
        for number, one in enumerate(held):
            yield "," if number else "["
            yield json.dumps(_metadata(one, base), allow_nan=False)
        yield "]"

    return StreamingResponse(content(), media_type=JSON)


def _metadata(one: Held, base: str) -> json_model.Json:
    url = instance_url(base, one)
    header = files.read_head(one.path, None)
    found = json_model.model(header, lambda path: f"{url}/bulkdata/{path}")
    if files.frame_count(header):
        vr = "OW" if header.get("BitsAllocated") == 16 else "OB"
        found[_PIXEL_DATA] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{_PIXEL_DATA}"}
    found["00081190"] = {"vr": "UR", "Value": [url]}
    try:
        found["00083002"] = {"vr": "UI", "Value": [str(files.syntax(one))]}
    except WebError:
        return found
    return found


def frames(one: Held, numbers: Sequence[int], accept: Sequence[MediaRange]) -> Response:
    """Return frames: decoded as octets, or compressed as they are stored.

    Raises:
        WebError: 404: there is no such frame; 406.
    """
    dataset = files.whole(one)
    count = files.frame_count(dataset)
    if not numbers or any(not 1 <= number <= count for number in numbers):
        raise not_found()
    return _frames(dataset, numbers, accept)


def _frames(dataset: FileDataset, numbers: Sequence[int], accept: Sequence[MediaRange]) -> Response:
    stored = UID(dataset.file_meta.TransferSyntaxUID)
    name = _NAMES.get(stored, OCTETS)
    for wanted in accept:
        as_stored = _as_stored(wanted, stored, name)
        if as_stored is None or (not wanted.in_parts and len(numbers) > 1):
            continue
        inner = name if as_stored else OCTETS
        parts = (_frame(dataset, number, stored, inner, as_stored=as_stored) for number in numbers)
        if wanted.in_parts:
            return in_parts(inner, parts)
        kind, content = next(parts)
        return Response(b"".join(content), media_type=kind)
    raise not_acceptable(f"frames are given as {OCTETS} (decoded) or as they are stored, {name}")


def _as_stored(wanted: MediaRange, stored: UID, name: str) -> bool | None:
    """Whether a frame is given as it is stored; None: this client cannot take it."""
    asked = wanted.transfer_syntax
    if wanted.kind in (OCTETS, ANY, _APPLICATION):
        if asked in ("*", stored):
            return bool(stored.is_encapsulated)
        return False if asked in ("", ExplicitVRLittleEndian) else None
    if stored.is_encapsulated and wanted.kind in (name, "image/*"):
        return True if asked in ("", "*", stored) else None
    return None


def _frame(dataset: FileDataset, number: int, stored: UID, name: str, *, as_stored: bool) -> Part:
    if as_stored:
        return f"{name}; transfer-syntax={stored}", [files.stored_frame(dataset, number)]
    return f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", [files.pixels(dataset, number)]


def bulk_data(one: Held, path: str, accept: Sequence[MediaRange]) -> Response:
    """Return a value that metadata name by its URI.

    Raises:
        WebError: 404: there is none; 406.
    """
    dataset = files.whole(one)
    stored = UID(dataset.file_meta.TransferSyntaxUID)
    if path == _PIXEL_DATA and stored.is_encapsulated:
        # However many frames it claims: they are given one by one, and the first that is not there ends the answer.
        if not (count := files.frame_count(dataset)):
            raise not_found()
        return _frames(dataset, range(1, count + 1), accept)
    with files.reading():
        element = json_model.at_path(dataset, path)
    if element is None or not isinstance(element.value, bytes):
        raise not_found()
    kinds = [OCTETS]
    document = str(dataset.get("MIMETypeOfEncapsulatedDocument") or "")
    if path == "00420011" and document == "application/pdf":
        kinds.append(document)
    for wanted in accept:
        if wanted.kind in (*kinds, ANY, _APPLICATION):
            kind = wanted.kind if wanted.kind in kinds else kinds[-1]
            if wanted.in_parts and wanted.name != ANY:
                return in_parts(kind, iter([(kind, [element.value])]))
            return Response(element.value, media_type=kind)
    raise not_acceptable(f"this value is given as {' or '.join(kinds)}")


def frame_numbers(text: str) -> list[int]:
    """Return the numbers of a list of frames.

    Raises:
        WebError: 400: it is none.
    """
    parts = text.split(",")
    if len(parts) > MOST_FRAMES or not all(p.isascii() and p.isdigit() and len(p) <= 7 for p in parts):
        raise WebError(400, f"frames are numbers from 1 with commas between them, {MOST_FRAMES} at most")
    return [int(part) for part in parts]
