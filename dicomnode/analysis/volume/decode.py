"""Pixels of source images in Hounsfield units."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dicomnode import logs
from dicomnode.analysis.arrays import HuArray
from dicomnode.analysis.series.headers import ImageHeader, string
from dicomnode.errors import RefusedError

#: What lies outside the field of view is at most this (no tissue is below air).
PADDING_HU = -1024
INT16 = np.iinfo(np.int16)
#: What a decoder looks at.
_DESCRIBING = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PlanarConfiguration", "NumberOfFrames"),
)
_PIXELS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")


@contextmanager
def reading(headers: Sequence[ImageHeader]) -> Iterator[Iterator[HuArray]]:
    """Give the images in HU, (row, column) as in the file, in the order given.

    Iterating raises:
        RefusedError: an image cannot be read or decoded ("unreadable", "undecodable").
    """
    with warnings.catch_warnings():
        # pydicom warns of padding bytes and of decoder details that change no pixel.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        multi_frame = {h.path: h for h in headers if h.frame_number is not None}
        opened = {path: _open(h) for path, h in multi_frame.items()}
        # One after another: openjpeg, CharLS and GDCM hold the interpreter's lock, and threads gained nothing.
        yield (image(h, opened.get(h.path)) for h in headers)


def image(header: ImageHeader, opened: Dataset | None = None) -> HuArray:
    """One image in HU, (row, column) as in the file. Raises as `reading` does.

    Args:
        header: of the image, or of one frame.
        opened: the whole file of a multi-frame image, so that it is read once for all its frames.
    """
    with _refusing(header):
        dataset = _open(header) if opened is None else opened
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        if header.frame_number is None:
            stored, _ = decoder.as_array(dataset, raw=True)
            return hounsfield(header.dataset, _one(dataset, stored))
        stored, _ = decoder.as_array(dataset, raw=True, index=header.frame_number - 1)
        return hounsfield(header.dataset, _one(dataset, stored))


def _one(dataset: Dataset, stored: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return one frame's stored values. Raises ValueError: the pixels are not the image that the header claims."""
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise ValueError("the pixels are not one image of Rows and Columns")
    return stored


def _open(header: ImageHeader) -> Dataset:
    """Return the pixels, described by the values of the header: what the file states besides is not looked at."""
    with _refusing(header):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(header.dataset.file_meta.TransferSyntaxUID)
        for keyword in _DESCRIBING:
            if keyword in header.source:
                dataset[keyword] = header.source[keyword]
        if header.pixels is not None:  # seen when the header was read: it is not read again
            offset, length = header.pixels
            with header.path.open("rb") as file:
                file.seek(offset)
                dataset.add_new("PixelData", "OW", file.read(length))
            return dataset
        stored = dcmread(header.path, force=True)
        for keyword in _PIXELS:
            element = stored.get_item(keyword) if keyword in stored else None
            if element is not None and isinstance(element.value, bytes):
                is_offsets = keyword != "PixelData"
                vr = "OV" if is_offsets else "OB" if dataset.file_meta.TransferSyntaxUID.is_encapsulated else "OW"
                dataset.add_new(keyword, vr, element.value)
        return dataset


@contextmanager
def _refusing(header: ImageHeader) -> Iterator[None]:
    """Errors of reading and decoding become refusals that name the image."""
    uid = logs.uid(string(header.dataset, "SOPInstanceUID"))
    try:
        yield
    except (RefusedError, MemoryError):
        raise
    except OSError as error:
        raise RefusedError("unreadable", f"Image {uid} cannot be read: {error.strerror}.") from error
    except Exception as error:
        # Each decoder has its own exceptions, and their messages may quote values of the file.
        syntax = UID(header.dataset.file_meta.TransferSyntaxUID)
        text = f"The pixels of image {uid} cannot be decoded ({syntax.name}: {type(error).__name__})."
        raise RefusedError("undecodable", text) from error


def hounsfield(dataset: Dataset, stored: NDArray[np.integer]) -> HuArray:
    """Convert stored values to HU: rescaled (PS3.3 C.11.1.1), rounded, clipped to int16, padding at most -1024.

    `stored` may have any shape, such as (frame, row, column); the result has the same. Pixel Padding Value and Pixel
    Padding Range Limit (PS3.3 C.7.5.1.1.2) are stored values, before rescaling.
    """
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    is_shift = slope == 1 and intercept.is_integer() and abs(intercept) < 1 << 30
    if is_shift and "PixelPaddingValue" not in dataset and stored.dtype in (np.int16, np.uint16) and stored.size:
        lowest, highest = int(stored.min()) + intercept, int(stored.max()) + intercept
        if INT16.min <= lowest and highest <= INT16.max:  # in 16 bits, then: nothing is clipped
            shift = np.array(int(intercept) & 0xFFFF, np.uint16).view(np.int16)
            return stored.view(np.int16) + shift
    if is_shift:
        hu: NDArray[np.generic] = stored.astype(np.int32) + np.int32(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    padding = _stored(dataset, dataset.get("PixelPaddingValue"))
    if padding is not None:
        limit = _stored(dataset, dataset.get("PixelPaddingRangeLimit"))
        low, high = sorted((padding, padding if limit is None else limit))
        padded = (stored >= low) & (stored <= high)
        hu[padded] = np.minimum(hu[padded], PADDING_HU)
    return np.clip(hu, INT16.min, INT16.max).astype(np.int16)


def _stored(dataset: Dataset, value: object) -> int | None:
    """Return a padding value as a stored value: some writers give it in the other signedness than the pixels."""
    if not isinstance(value, int):
        return None
    bits = int(dataset.BitsAllocated)
    wrapped = value % (1 << bits)
    return wrapped - (1 << bits) if dataset.PixelRepresentation == 1 and wrapped >= 1 << (bits - 1) else wrapped
