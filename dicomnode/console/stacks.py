"""Axial and coronal slices of the analysed series, with the outlines of the lungs and the map of their attenuation.

Axial images come by DICOMweb, as they are stored. What lies over them, and coronal pictures, are made here, from what
the analysis has left beside its results and from the images; at no more than 256 pixels across, so that a few studies
fit into memory.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from dicomnode.analysis.arrays import LEFT, RIGHT, InPlane
from dicomnode.analysis.measures.quantify import HAA_HU, LAA_BELOW_HU
from dicomnode.analysis.series import geometry
from dicomnode.analysis.series.headers import read_headers
from dicomnode.analysis.series.multiframe import ENHANCED_CT
from dicomnode.analysis.volume.load import turn
from dicomnode.dicomweb import files, picture
from dicomnode.files import OutsideRootError
from dicomnode.reception.holdings import Held, of_image
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import LABELS, SOURCES, results_folder

#: Lung window, HU: centre and width.
WINDOW: Final = (-600.0, 1500.0)
_MOST_ACROSS, _MOST_VOXELS, _MOST_ROWS = 256, 40_000_000, 1024
#: Studies whose slices are kept.
_KEPT: Final = 2
#: RGB, as on the page and in the segmentations: outlines by lung, areas by attenuation.
_OUTLINES: Final = {RIGHT: (230, 159, 0), LEFT: (86, 180, 233)}
_HIGH, _LOW = (213, 94, 0), (0, 114, 178)
_OPAQUE, _SHEER = 255, 120


class NoSliceError(Exception):
    """There is no such slice, or nothing that slices could be made of."""


@dataclass(frozen=True)
class SourceSlice:
    """An image, or one frame of an enhanced CT. `header`: of the frame, with what it shares with others; else None."""

    held: Held
    frame: int | None = None
    header: Dataset | None = field(default=None, repr=False)

    def read(self, tags: Collection[int]) -> Dataset:
        """Return its header; of an image these elements."""
        return files.read_head(self.held.path, tags) if self.header is None else self.header


@dataclass(frozen=True)
class ScrollStack:
    """A series, coarsened, on the patient's axes (`analysis.arrays`).

    Attributes:
        grey: shape (slice, y, x), as in the lung window; feet first.
        labels: likewise; 0 background, 1 right lung, 2 left lung.
        areas: likewise, inside the lungs; 1 high attenuation, 2 low.
        rows: (slice below, slice above, share of the one above) of each row of a coronal picture, head first.
        in_plane: how an image was turned.
    """

    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    areas: NDArray[np.uint8]
    rows: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
    in_plane: InPlane


class ScrollStacks:
    """The stacks of the studies that were looked at last. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], ScrollStack | None] = OrderedDict()

    def stack(self, catalog: Catalog, results: Path, study_uid: str) -> ScrollStack:
        """Return the stack of a study's newest result that stands.

        Raises:
            NoSliceError: nothing was analysed, or its images have gone.
            SpoolError: the catalogue failed.
        """
        generation = _generation(catalog, study_uid)
        if generation is None:
            raise NoSliceError
        key = (study_uid, generation)
        with self._lock:  # one after another: each takes a processor and memory
            found = self._kept.pop(key) if key in self._kept else _stack_or_none(catalog, results, key)
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if found is None:
            raise NoSliceError
        return found


def _stack_or_none(catalog: Catalog, results: Path, key: tuple[str, int]) -> ScrollStack | None:
    """Return a stack; None where the images give none, which is remembered: to find out, all of them are read.

    Raises:
        NoSliceError: the images have gone, or are not there yet.
    """
    objects = sources(catalog, results, key[0])
    if not objects:
        raise NoSliceError
    try:
        return _stack(objects, results, key)
    except NoSliceError:
        return None


def sources(catalog: Catalog, results: Path, study_uid: str) -> list[SourceSlice]:
    """Return what a study's newest result was made of, feet first; none where there is none to show."""
    generation = _generation(catalog, study_uid)
    if generation is None:
        return []
    try:
        folder = results_folder(results, study_uid, generation)
        named = json.loads((folder / SOURCES).read_text("utf-8"))
        many = _labelled(folder / LABELS)
    except (OSError, KeyError, ValueError, BadZipFile, OutsideRootError):
        return []
    by_path = {one.path: of_image(one) for one in catalog.web_instances([study_uid])}
    held = [by_path[path] for path in map(str, named) if path in by_path]
    if len(held) != len(named):
        return []
    found = [SourceSlice(one) for one in held]
    if any(one.sop_class_uid in ENHANCED_CT for one in held):
        found = _frames(held)
    return found if len(found) == many > 1 else []


def _frames(held: Sequence[Held]) -> list[SourceSlice]:
    """Return the frames of enhanced images in the order in which `analysis.volume.load` stacks them."""
    by_path = {one.path: one for one in held}
    headers, _ = read_headers(by_path)
    planes = [geometry.plane(one.dataset) for one in headers]
    known = [one for one in planes if one is not None]
    if not known or len(known) != len(planes):
        return []
    in_order = [headers[n] for n in np.argsort(geometry.stack(known).positions_mm)]
    return [SourceSlice(by_path[one.path], one.frame_number, one.dataset) for one in in_order]


def _labelled(path: Path) -> int:
    """Return of how many slices there are labels, without reading them.

    Raises:
        OSError, KeyError, ValueError, BadZipFile: there are none.
    """
    with ZipFile(path) as archive, archive.open("labels.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, _ = read(file)
    return shape[0] if len(shape) == 3 else 0


def _generation(catalog: Catalog, study_uid: str) -> int | None:
    """Return the generation that is shown: none of a study that is held as doubtful, or whose images have gone."""
    return catalog.standing_generation(study_uid) if catalog.held_studies([study_uid]) else None


def rows_across(one: SourceSlice) -> int:
    """Return how many coronal slices there are of the images like this one."""
    header = one.read((0x00280010, 0x00280011, 0x00200037))
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    return -(-(columns if _in_plane(header).transposed else rows) // _step(rows, columns, 1))


def sides(one: SourceSlice) -> str:
    """Return which side of the patient is at the left and at the right edge of an image as it is stored.

    "" where neither is.
    """
    in_plane = _in_plane(one.read((0x00200037,)))
    if in_plane.transposed:
        return ""
    return "LR" if in_plane.flip_x else "RL"


def drawn(stack: ScrollStack, plane: str, kind: str, number: int) -> bytes:
    """Return a picture as PNG. Raises NoSliceError: there is no such slice."""
    arrays = {"image": stack.grey, "outline": stack.labels, "areas": stack.areas}
    array = arrays[kind]
    many = array.shape[0 if plane == "axial" else 1]
    if not 1 <= number <= many or (plane, kind) == ("axial", "image"):
        raise NoSliceError
    if plane == "axial":
        flat = _as_stored(array[many - number], stack.in_plane)
    else:
        flat = _coronal(array[:, number - 1], stack.rows, smooth=kind == "image")
    if kind == "image":
        return _png(flat)
    return _png(_outlines(flat) if kind == "outline" else _areas(flat))


def _stack(slices: list[SourceSlice], results: Path, key: tuple[str, int]) -> ScrollStack:
    try:
        with np.load(results_folder(results, *key) / LABELS, allow_pickle=False) as file:
            labels = file["labels"]
    except (OSError, KeyError, ValueError):
        raise NoSliceError from None
    if labels.ndim != 3 or labels.shape[0] != len(slices):
        raise NoSliceError
    step = _step(labels.shape[1], labels.shape[2], len(slices))
    grey, turned, areas, positions, spacing, in_plane = [], [], [], [], 1.0, InPlane()
    for number, (stored, header) in enumerate(_decoded(slices)):
        if stored.shape != labels.shape[1:]:
            raise NoSliceError
        if number == 0:
            in_plane, spacing = _in_plane(header), _across(header) * step
        hu = turn(stored, in_plane)[::step, ::step]
        label = turn(labels[number].astype(np.int16), in_plane)[::step, ::step].astype(np.uint8)
        grey.append(picture.windowed(hu.astype(np.float32), *WINDOW))
        turned.append(label)
        areas.append(_of_areas(hu, label))
        positions.append(_along(header))
    rows = _rows(np.array(positions), spacing)
    return ScrollStack(np.array(grey), np.array(turned), np.array(areas), rows, in_plane)


def _decoded(slices: Sequence[SourceSlice]) -> Iterator[tuple[NDArray[np.int16], Dataset]]:
    """Yield each slice in HU with its header; the file of many frames is read once for those that follow each other."""
    held, image = None, Dataset()
    for one in slices:
        if one.held is not held:
            held, image = one.held, Dataset()  # let go of the one before, before the next is read
            image = files.whole(held)
        header = image if one.header is None else one.header
        yield _hounsfield(image, one.frame or 1, header), header


def _step(rows: int, columns: int, slices: int) -> int:
    """Return how many pixels become one."""
    step = max(1, -(-max(rows, columns) // _MOST_ACROSS))
    while slices * (rows // step) * (columns // step) > _MOST_VOXELS:
        step += 1
    return step


def _hounsfield(image: Dataset, number: int, header: Dataset) -> NDArray[np.int16]:
    stored, _ = files.frame(image, number, raw=True)
    if stored.ndim != 2:
        raise NoSliceError
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    return np.clip(np.rint(stored.astype(np.float64) * slope + intercept), -32768, 32767).astype(np.int16)


def _of_areas(hu: NDArray[np.int16], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    inside = label > 0
    found = np.zeros(label.shape, np.uint8)
    found[inside & (hu >= HAA_HU[0]) & (hu <= HAA_HU[1])] = 1
    found[inside & (hu < LAA_BELOW_HU)] = 2
    return found


def _cosines(image: Dataset) -> list[float]:
    try:
        found = [float(one) for one in image.get("ImageOrientationPatient") or ()]
    except (TypeError, ValueError):
        found = []
    return found if len(found) == 6 else [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def _in_plane(image: Dataset) -> InPlane:
    """As `analysis.volume.load` turns an image."""
    cosines = _cosines(image)
    along_row, along_column = cosines[:3], cosines[3:]
    transposed = abs(along_row[0]) < abs(along_row[1])
    y, x = (along_row, along_column) if transposed else (along_column, along_row)
    return InPlane(transposed=transposed, flip_y=y[1] < 0, flip_x=x[0] < 0)


def _across(image: Dataset) -> float:
    """Return how far pixels are apart from the right to the left of the patient, mm."""
    try:
        between = [float(one) for one in image.get("PixelSpacing") or ()]
        return between[0] if _in_plane(image).transposed else between[1]
    except (TypeError, ValueError, IndexError):
        return 1.0


def _along(image: Dataset) -> float:
    """Return where an image lies, mm; it grows towards the head."""
    cosines = np.array(_cosines(image))
    normal = np.cross(cosines[:3], cosines[3:])
    try:
        position = np.array([float(one) for one in image.get("ImagePositionPatient") or ()])
        return float(position @ normal) * (1.0 if normal[2] >= 0 else -1.0)
    except (TypeError, ValueError):
        raise NoSliceError from None


def _rows(
    positions: NDArray[np.float64], spacing: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return which slices a coronal picture's rows lie between: as far apart as its columns."""
    extent = float(positions[-1] - positions[0])
    if not (extent > 0 and spacing > 0 and (np.diff(positions) > 0).all()):
        raise NoSliceError
    count = min(_MOST_ROWS, max(2, round(extent / spacing) + 1))
    at = np.interp(np.linspace(positions[-1], positions[0], count), positions, np.arange(len(positions)))
    below = np.minimum(np.floor(at).astype(np.intp), len(positions) - 2)
    return below, below + 1, (at - below).astype(np.float32)


def _coronal(
    slice_: NDArray[np.uint8], rows: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]], *, smooth: bool
) -> NDArray[np.uint8]:
    below, above, share = rows
    if not smooth:
        return slice_[np.where(share < 0.5, below, above)]
    weight = share[:, None]
    return np.rint(slice_[below] * (1 - weight) + slice_[above] * weight).astype(np.uint8)


def _as_stored(array: NDArray[np.uint8], in_plane: InPlane) -> NDArray[np.uint8]:
    """Undo `turn`: what lies over an image lies in its own rows and columns."""
    array = array[:: -1 if in_plane.flip_y else 1, :: -1 if in_plane.flip_x else 1]
    return array.T if in_plane.transposed else array


def _outlines(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    fine = np.kron(labels, np.ones((2, 2), np.uint8))
    padded = np.pad(fine, 1)
    inner = np.ones(fine.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[dy : dy + fine.shape[0], dx : dx + fine.shape[1]] == fine
    drawn_ = np.zeros((*fine.shape, 4), np.uint8)
    for number, colour in _OUTLINES.items():
        drawn_[(fine == number) & ~inner] = (*colour, _OPAQUE)
    return drawn_


def _areas(areas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    drawn_ = np.zeros((*areas.shape, 4), np.uint8)
    drawn_[areas == 1], drawn_[areas == 2] = (*_HIGH, _SHEER), (*_LOW, _SHEER)
    return drawn_


def _png(array: NDArray[Any]) -> bytes:
    written = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(written, "PNG")
    return written.getvalue()
