"""The pixels of a series become one volume in Hounsfield units, on the axes that `arrays` describes.

Positions decide the order of the slices, never Instance Number or the order of the files. Every image is turned so
that its columns run from the patient's right to left and its rows from anterior to posterior, in any posture. A stack
that is tilted or unevenly spaced is resampled (`resample`), and the volume knows where its source images lie.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.analysis.arrays import Frame, HuArray, InPlane, Volume
from dicomnode.analysis.series import geometry, selection_rules, suitability
from dicomnode.analysis.series.geometry import Plane, Vector
from dicomnode.analysis.series.headers import ImageHeader, Series, number, string
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.analysis.volume import decode, regrid, size
from dicomnode.errors import RefusedError

Progress = Callable[[int, int], None]


def load(
    series: Series,
    progress: Progress | None = None,
    limits: Rules = selection_rules.DEFAULT,
    memory_bytes: int | None = None,
) -> Volume:
    """Return the volume (z, y, x), HU, of a series of CT images, single ones or the frames of an enhanced CT.

    Args:
        series: of CT images.
        progress: called with (slices done, slices in all), in this thread.
        limits: what makes a series suitable.
        memory_bytes: what the analysis may use.

    Raises:
        RefusedError: the series is no axial stack in HU (the codes of `suitability`), has one slice only
            ("too-few-slices"), is larger than the memory allows ("too-large": nothing was decoded), or an image cannot
            be read or decoded ("unreadable", "undecodable").
    """
    known = suitability.facts(series, limits)
    for reason in suitability.reasons_against_loading(known):
        raise RefusedError(reason.code, reason.text)
    stack = known.stack
    if stack is None or len(series.headers) < 2:
        raise RefusedError("too-few-slices", "One slice is not a volume: its extent across the slice is not known.")

    order = np.argsort(stack.positions_mm)
    headers = [series.headers[i] for i in order]
    planes = [p for i in order if (p := known.planes[i]) is not None]
    in_plane = _in_plane(planes[0])
    axes = _axes(planes[0], in_plane)
    spacing, shape = _spacing(headers[0].dataset, in_plane), _shape(headers[0].dataset, in_plane)
    size.check((len(headers), *shape), memory_bytes)
    origin = _origin(planes[0], in_plane, axes, shape, spacing)
    grid = None
    if stack.tilted or not stack.uniform:
        grid = regrid.plan(stack, _shifts(planes, axes, spacing), shape, spread=not stack.uniform)
        size.check(grid.shape, memory_bytes)
        origin = origin + sum(axis * n * s for axis, n, s in zip(axes, grid.first, spacing, strict=True))
    with decode.reading(headers) as images:
        turned = _turned(images, in_plane, len(headers), progress)
        hu = _stacked(turned, (len(headers), *shape)) if grid is None else regrid.fill(grid, turned)
    return Volume(
        hu=hu,
        spacing_mm=(stack.step_mm if grid is None else grid.step_mm, *spacing),
        origin_mm=_triple(origin),
        axes=(_triple(planes[0].normal), _triple(axes[0]), _triple(axes[1])),
        frames=tuple(_frame(h) for h in headers),
        in_plane=in_plane,
        source=None if grid is None else grid.source,
    )


def turn(image: NDArray[np.int16], in_plane: InPlane) -> NDArray[np.int16]:
    """Return a source image (row, column), HU, turned to (y, x): transposed first, then flipped.

    `Volume.to_source` undoes it.
    """
    if in_plane.transposed:
        image = image.T
    return image[:: -1 if in_plane.flip_y else 1, :: -1 if in_plane.flip_x else 1]


def _in_plane(plane: Plane) -> InPlane:
    transposed = abs(plane.along_row[0]) < abs(plane.along_row[1])
    y, x = (plane.along_row, plane.along_column) if transposed else (plane.along_column, plane.along_row)
    return InPlane(transposed=bool(transposed), flip_y=bool(y[1] < 0), flip_x=bool(x[0] < 0))


def _axes(plane: Plane, in_plane: InPlane) -> tuple[Vector, Vector]:
    """Return the unit vectors along which y and x grow after turning."""
    y, x = (plane.along_row, plane.along_column) if in_plane.transposed else (plane.along_column, plane.along_row)
    return (-y if in_plane.flip_y else y), (-x if in_plane.flip_x else x)


def _origin(
    lowest: Plane,
    in_plane: InPlane,
    axes: tuple[Vector, Vector],
    shape: tuple[int, ...],
    spacing: tuple[float, float],
) -> Vector:
    """Return the centre of voxel [0, 0, 0]: a flipped axis starts where the source image ends."""
    flips = (in_plane.flip_y, in_plane.flip_x)
    extents = [axis * (n - 1) * s * flip for axis, n, s, flip in zip(axes, shape, spacing, flips, strict=True)]
    return lowest.position - extents[0] - extents[1]


def _spacing(dataset: Dataset, in_plane: InPlane) -> tuple[float, float]:
    """Spacing along y and x, mm. Pixel Spacing holds the distance between rows first (PS3.3 10.7.1.3)."""
    between = geometry.pixel_spacing(dataset)
    assert between is not None, "suitability asks for Pixel Spacing"
    rows, columns = float(between[0]), float(between[1])
    return (columns, rows) if in_plane.transposed else (rows, columns)


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector)
    return x, y, z


def _shape(dataset: Dataset, in_plane: InPlane) -> tuple[int, int]:
    """Size of an image along y and x."""
    rows, columns = (number(dataset, keyword) for keyword in ("Rows", "Columns"))
    assert rows is not None, "suitability asks for Rows"
    assert columns is not None, "suitability asks for Columns"
    return (columns, rows) if in_plane.transposed else (rows, columns)


def _shifts(planes: list[Plane], axes: tuple[Vector, Vector], spacing: tuple[float, float]) -> NDArray[np.float64]:
    """How far each image lies from the lowest one along y and x, in voxels: shape (frame, 2)."""
    from_lowest = np.array([p.position - planes[0].position for p in planes])
    return from_lowest @ np.array(axes).T / np.array(spacing)


def _turned(images: Iterator[HuArray], in_plane: InPlane, total: int, progress: Progress | None) -> Iterator[HuArray]:
    for done, image in enumerate(images, start=1):
        yield turn(image, in_plane)
        if progress is not None:
            progress(done, total)


def _stacked(images: Iterator[HuArray], shape: tuple[int, int, int]) -> HuArray:
    hu = np.empty(shape, np.int16)
    for z, image in enumerate(images):
        hu[z] = image
    return hu


def _frame(header: ImageHeader) -> Frame:
    sop_class_uid, sop_instance_uid = (string(header.dataset, k) for k in ("SOPClassUID", "SOPInstanceUID"))
    return Frame(header.path, sop_class_uid, sop_instance_uid, header.frame_number)
