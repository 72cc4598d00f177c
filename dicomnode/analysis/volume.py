"""The pixels of a series become one volume in Hounsfield units, on the axes that `arrays` describes.

Positions decide the order of the slices, never Instance Number or the order of the files. Every image is turned so
that its columns run from the patient's right to left and its rows from anterior to posterior, in any posture.
"""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dicomnode.analysis import geometry, suitability
from dicomnode.analysis.arrays import Frame, HuArray, InPlane, Volume
from dicomnode.analysis.geometry import Plane, Vector
from dicomnode.analysis.headers import Header, Series, number, string
from dicomnode.errors import RefusedError

#: What lies outside the field of view is at most this (no tissue is below air).
PADDING_HU = -1024
INT16 = np.iinfo(np.int16)


def load(series: Series, progress: Callable[[int, int], None] | None = None) -> Volume:
    """The volume of a series of single-frame CT images.

    `progress` is called with (slices done, slices in all), in this thread.

    Raises:
        RefusedError: the series is no regular axial stack in HU (the codes of `suitability`), has one slice only
            ("too-few-slices"), or an image cannot be read or decoded ("unreadable", "undecodable").
    """
    known = suitability.facts(series)
    for reason in suitability.reasons_against_loading(known):
        raise RefusedError(reason.code, reason.text)
    if known.stack is None or len(series.headers) < 2:
        raise RefusedError("too-few-slices", "One slice is no volume: its extent across the slice is not known.")

    order = np.argsort(known.stack.positions_mm)
    headers = [series.headers[i] for i in order]
    planes = [p for p in known.planes if p is not None]
    lowest = planes[order[0]]
    in_plane = _in_plane(lowest)
    y_axis, x_axis = _axes(lowest, in_plane)
    hu = _pixels(headers, in_plane, progress)
    spacing = _spacing(headers[0].dataset, in_plane)
    return Volume(
        hu=hu,
        spacing_mm=(known.stack.step_mm, *spacing),
        origin_mm=_triple(_origin(lowest, in_plane, (y_axis, x_axis), hu.shape[1:], spacing)),
        axes=(_triple(lowest.normal), _triple(y_axis), _triple(x_axis)),
        frames=tuple(
            Frame(h.path, string(h.dataset, "SOPClassUID"), string(h.dataset, "SOPInstanceUID")) for h in headers
        ),
        in_plane=in_plane,
    )


def turn(image: NDArray[np.int16], in_plane: InPlane) -> NDArray[np.int16]:
    """A source image (row, column) turned to (y, x): transposed first, then flipped. `Volume.to_source` undoes it."""
    if in_plane.transposed:
        image = image.T
    return image[:: -1 if in_plane.flip_y else 1, :: -1 if in_plane.flip_x else 1]


def hounsfield(dataset: Dataset, stored: NDArray[np.integer]) -> NDArray[np.int16]:
    """Stored values in HU: rescaled (PS3.3 C.11.1.1), rounded, clipped to int16, padding at most -1024.

    Pixel Padding Value and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2) are stored values, before rescaling.
    """
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    hu = np.rint(stored * slope + intercept)
    padding = _stored(dataset, dataset.get("PixelPaddingValue"))
    if padding is not None:
        limit = _stored(dataset, dataset.get("PixelPaddingRangeLimit"))
        low, high = sorted((padding, padding if limit is None else limit))
        padded = (stored >= low) & (stored <= high)
        hu[padded] = np.minimum(hu[padded], PADDING_HU)
    return np.clip(hu, INT16.min, INT16.max).astype(np.int16)


def _in_plane(plane: Plane) -> InPlane:
    transposed = abs(plane.along_row[0]) < abs(plane.along_row[1])
    y, x = (plane.along_row, plane.along_column) if transposed else (plane.along_column, plane.along_row)
    return InPlane(transposed=bool(transposed), flip_y=bool(y[1] < 0), flip_x=bool(x[0] < 0))


def _axes(plane: Plane, in_plane: InPlane) -> tuple[Vector, Vector]:
    """The unit vectors along which y and x grow after turning."""
    y, x = (plane.along_row, plane.along_column) if in_plane.transposed else (plane.along_column, plane.along_row)
    return (-y if in_plane.flip_y else y), (-x if in_plane.flip_x else x)


def _origin(
    lowest: Plane,
    in_plane: InPlane,
    axes: tuple[Vector, Vector],
    shape: tuple[int, ...],
    spacing: tuple[float, float],
) -> Vector:
    """The centre of voxel [0, 0, 0]: a flipped axis starts where the source image ends."""
    flips = (in_plane.flip_y, in_plane.flip_x)
    extents = [axis * (n - 1) * s * flip for axis, n, s, flip in zip(axes, shape, spacing, flips, strict=True)]
    return lowest.position - extents[0] - extents[1]


def _spacing(dataset: Dataset, in_plane: InPlane) -> tuple[float, float]:
    """Spacing along y and x, mm. Pixel Spacing holds the distance between rows first (PS3.3 10.7.1.3)."""
    between = geometry.numbers(dataset, "PixelSpacing", 2)
    assert between is not None, "suitability asks for Pixel Spacing"
    rows, columns = float(between[0]), float(between[1])
    return (columns, rows) if in_plane.transposed else (rows, columns)


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector)
    return x, y, z


def _pixels(headers: list[Header], in_plane: InPlane, progress: Callable[[int, int], None] | None) -> HuArray:
    rows, columns = (number(headers[0].dataset, keyword) for keyword in ("Rows", "Columns"))
    assert rows is not None, "suitability asks for Rows"
    assert columns is not None, "suitability asks for Columns"
    shape = (columns, rows) if in_plane.transposed else (rows, columns)
    hu = np.empty((len(headers), *shape), np.int16)
    # One image at a time: threads were measured to gain nothing, with any of the decoders.
    with warnings.catch_warnings():
        # pydicom warns of padding bytes and of decoder details that change no pixel.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        for z, header in enumerate(headers):
            hu[z] = turn(_decode(header), in_plane)
            if progress is not None:
                progress(z + 1, len(headers))
    return hu


def _decode(header: Header) -> NDArray[np.int16]:
    """The image in HU, (row, column) as in the file."""
    uid = string(header.dataset, "SOPInstanceUID")
    syntax = UID(header.dataset.file_meta.TransferSyntaxUID)
    try:
        dataset = dcmread(header.path, force=True)
        dataset.file_meta.TransferSyntaxUID = syntax
        stored, _ = get_decoder(syntax).as_array(dataset, raw=True)
        return hounsfield(dataset, stored)
    except OSError as error:
        raise RefusedError("unreadable", f"Image {uid} cannot be read: {error.strerror}.") from error
    except MemoryError:
        raise
    except Exception as error:
        # Each decoder has its own exceptions, and their messages may quote values of the file.
        text = f"The pixels of image {uid} cannot be decoded ({syntax.name}: {type(error).__name__})."
        raise RefusedError("undecodable", text) from error


def _stored(dataset: Dataset, value: object) -> int | None:
    """A padding value as a stored value: some writers give it in the other signedness than the pixels."""
    if not isinstance(value, int):
        return None
    bits = int(dataset.BitsAllocated)
    wrapped = value % (1 << bits)
    return wrapped - (1 << bits) if dataset.PixelRepresentation == 1 and wrapped >= 1 << (bits - 1) else wrapped
