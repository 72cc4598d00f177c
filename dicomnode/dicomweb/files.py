"""Files that are held, read for a web client: whole, or without their pixels; and as another transfer syntax."""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.filewriter import dcmwrite
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicomnode.dicomweb import codestream
from dicomnode.dicomweb.memory import SharedMemory
from dicomnode.dicomweb.problems import WebError, not_acceptable, not_found
from dicomnode.network.scan import HeaderError
from dicomnode.reception.held_header import syntax_of
from dicomnode.reception.holdings import Held

#: Larger ones are given as they are stored only: what is changed is held in memory.
LARGEST_DECODED: Final = 1_000_000_000
_UNKNOWN: Final = "the object's transfer syntax is unknown: ask for it with transfer-syntax=*"
#: What all requests together hold.
MEMORY: Final = SharedMemory()


@contextmanager
def reading() -> Iterator[None]:
    """Turn whatever a damaged file provokes into an answer that tells nothing of its content.

    Raises:
        WebError: 404: the file has gone; 500 as 406: it cannot be read or decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            yield
    except WebError:
        raise
    except FileNotFoundError:
        raise not_found() from None
    except MemoryError:
        raise WebError(503, "the object is too large to be decoded now", {"Retry-After": "30"}) from None
    except Exception as error:
        text = f"the object cannot be read or decoded ({type(error).__name__}): ask for it as it is stored"
        raise not_acceptable(text) from error


def read_head(path: Path, tags: Collection[int] | None) -> Dataset:
    """Return a file's elements in front of the pixels: all, or those named; none where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
    except Exception:  # noqa: BLE001  (whatever a damaged file provokes: the answer tells less)
        return Dataset()


def syntax(one: Held) -> UID:
    """Return the transfer syntax in which an object is stored.

    Raises:
        WebError: 404, 406.
    """
    with reading(), one.path.open("rb") as file:
        try:
            return syntax_of(file)
        except HeaderError as error:
            raise not_acceptable(_UNKNOWN) from error


def whole(one: Held) -> FileDataset:
    """Return an object.

    Raises:
        WebError: 404, 406: it cannot be read, or is too large to be held in memory; 503: there is too much in it now.
    """
    with reading():
        size = one.path.stat().st_size
        if size > LARGEST_DECODED:
            raise not_acceptable("the object is too large to be decoded: ask for it with transfer-syntax=*")
        MEMORY.take(size)
        try:
            dataset = dcmread(one.path)
        except BaseException:
            MEMORY.give(size)
            raise
        MEMORY.leave_to(dataset, size)
        # As with Query/Retrieve: what is not whole is not given for all.
        if one.size not in (None, one.path.stat().st_size):
            raise not_found()
        if "TransferSyntaxUID" not in dataset.file_meta:
            raise not_acceptable(_UNKNOWN)
        return dataset


def explicit(one: Held) -> bytes:
    """Return an object's file in Explicit VR Little Endian, decoded where it is compressed.

    Raises:
        WebError: 404, 406.
    """
    dataset = whole(one)
    stored = UID(dataset.file_meta.TransferSyntaxUID)
    with reading():
        decoded = _decoded_size(dataset, frame_count(dataset)) if stored.is_encapsulated else 0
        with MEMORY.held(decoded + one.path.stat().st_size):
            if stored.is_encapsulated:
                for number in range(1, frame_count(dataset) + 1):
                    _require_as_large_as_it_says(dataset, number)
                dataset.decompress(generate_instance_uid=False)
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            written = BytesIO()
            if stored == DeflatedExplicitVRLittleEndian or not stored.is_little_endian or stored.is_implicit_VR:
                for _ in dataset.iterall():
                    pass  # every value is decoded before it is written anew
            dcmwrite(written, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
            return written.getvalue()


def frame_count(dataset: Dataset) -> int:
    """Return how many frames an image has; 0: it is none."""
    if "Rows" not in dataset or "Columns" not in dataset:
        return 0
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def frame(dataset: Dataset, number: int, *, raw: bool) -> tuple[NDArray[np.generic], dict[str, object]]:
    """Return a decoded frame, shape (row, column) or (row, column, 3), and what its decoder says of it.

    Args:
        dataset: the image.
        number: of the frame, from 1.
        raw: colours as they are stored; else RGB.

    Raises:
        WebError: 404: there is no such frame; 406: it cannot be decoded.
    """
    if not 1 <= number <= frame_count(dataset):
        raise not_found()
    with reading(), MEMORY.held(_decoded_size(dataset, 1)):
        decoder = get_decoder(UID(dataset.file_meta.TransferSyntaxUID))
        _require_as_large_as_it_says(dataset, number)
        array, facts = decoder.as_array(dataset, index=number - 1, raw=raw)
        return array, dict(facts)


def _decoded_size(dataset: Dataset, frames: int) -> int:
    """Return how many bytes it takes once it is decoded. Refuses what takes too many: a few bytes may claim it."""
    of_pixel = int(dataset.get("SamplesPerPixel") or 1) * max(2, int(dataset.get("BitsAllocated") or 16) // 8)
    size = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0) * of_pixel * frames
    if size > LARGEST_DECODED:
        raise not_acceptable("the object is too large to be decoded: ask for it with transfer-syntax=*")
    return max(0, size)


def stored_frame(dataset: Dataset, number: int) -> bytes:
    """Return a frame as it is stored: a compressed one's bytes, or its pixels.

    Raises:
        WebError: 404: there is no such frame; 406: it cannot be read.
    """
    if not 1 <= number <= frame_count(dataset):
        raise not_found()
    with reading():
        return _stored(dataset, number)


def _stored(dataset: Dataset, number: int) -> bytes:
    offsets, lengths = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    table = (offsets, lengths) if offsets and lengths else None
    count = frame_count(dataset)
    return get_frame(dataset.PixelData, number - 1, number_of_frames=count, extended_offsets=table)


def _require_as_large_as_it_says(dataset: Dataset, number: int) -> None:
    """Refuse a compressed frame that would be decoded to more samples than the data set says: a bomb."""
    if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        most = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
        if codestream.samples(_stored(dataset, number)) > most:
            raise not_acceptable("the object's pixels are not what it says: ask for it with transfer-syntax=*")


def pixels(dataset: Dataset, number: int) -> bytes:
    """Return a frame's pixels, little endian, decoded where it is compressed; bits packed where a pixel is one.

    Raises:
        WebError: as `frame`.
    """
    if dataset.get("BitsAllocated") == 1:
        array, _ = frame(dataset, number, raw=True)
        return np.packbits(array.astype(np.uint8).ravel(), bitorder="little").tobytes()
    if not 1 <= number <= frame_count(dataset):
        raise not_found()
    with reading(), MEMORY.held(_decoded_size(dataset, 1)):
        stored = UID(dataset.file_meta.TransferSyntaxUID)
        if not stored.is_little_endian:
            array, _ = get_decoder(stored).as_array(dataset, index=number - 1, raw=True)
            return array.astype(array.dtype.newbyteorder("<")).tobytes()
        _require_as_large_as_it_says(dataset, number)
        content, _ = get_decoder(stored).as_buffer(dataset, index=number - 1, raw=True)
        return bytes(content)
