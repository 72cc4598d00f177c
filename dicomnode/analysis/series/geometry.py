"""Where the images of a series lie: positions along the slice normal, steps, tilt. No pixels.

Coordinates are the patient's (LPS, mm; DICOM PS3.3 C.7.6.2.1.1). Slice Thickness, Instance Number and the order of the
files are never used for geometry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.analysis.series.headers import ImageHeader, strings

Vector = NDArray[np.float64]

#: Two images nearer than this lie at the same position (positions carry rounding of about 1e-3 mm).
SAME_POSITION_MM = 0.01
#: A step longer than this many usual (median) ones is a gap.
GAP = 1.5
#: Gaps up to this long are filled by linear interpolation, as coarse there as a series at that step, where no more than
#: this fraction of the steps (but always one) are such gaps.
MAX_FILLED_GAP_MM, MAX_FILLED_GAPS = 3.0, 0.02
#: Steps may differ by a tenth of the median; positions rounded to 0.1 mm make steps differ by as much as 0.1 mm.
STEP_TOLERANCE, STEP_ROUNDING_MM = 0.1, 0.15
#: Steps that differ by no more than this fraction of the median are resampled onto uniform ones.
SMALL_DEVIATION = 0.25
#: Over a chest of 300 mm half a degree moves the last image by 2.6 mm, about three pixels: less is not resampled.
NO_TILT_DEGREES = 0.5
#: Gantries tilt up to 30 degrees.
MAX_TILT_DEGREES = 30.5
#: Farther off the line through the others, an image's position is wrong and not tilted.
MAX_OFF_LINE_MM = 1.0
#: Pixels of a scanner, mm, and how far from its origin an image may lie: bytes that were read under another VR give
#: any number, and volumes made of it say nothing.
PIXEL_MM = (0.01, 50.0)
MOST_AWAY_MM = 10_000.0


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of one image: the centre of its first pixel, the directions of its rows and columns (PS3.3 C.7.6.2).

    Attributes:
        position: Image Position (Patient), mm.
        along_row: unit vector in which the column index grows (first triple of Image Orientation (Patient)).
        along_column: unit vector in which the row index grows (second triple).
    """

    position: Vector
    along_row: Vector
    along_column: Vector

    @property
    def normal(self) -> Vector:
        """Unit vector (x, y, z) across the plane, pointing to the head (for an axial image)."""
        n = np.cross(self.along_row, self.along_column)
        return n if n[2] >= 0 else -n


@dataclass(frozen=True)
class SliceStack:
    """A series as a stack of planes along one normal.

    Attributes:
        positions_mm: of each image along the normal, in the order of the headers.
        tilt_degrees: angle between the normal and the line from the lowest image to the highest (gantry tilt).
        off_line_mm: how far the image farthest from that line lies from it.
    """

    positions_mm: tuple[float, ...]
    tilt_degrees: float
    off_line_mm: float

    @property
    def steps_mm(self) -> tuple[float, ...]:
        """Steps between neighbours, feet to head."""
        return tuple(float(s) for s in np.diff(np.sort(self.positions_mm)))

    @property
    def distinct_steps_mm(self) -> tuple[float, ...]:
        """The steps between images at different positions."""
        return tuple(s for s in self.steps_mm if s >= SAME_POSITION_MM)

    @property
    def repeats(self) -> int:
        """How many images lie where another does."""
        return len(self.steps_mm) - len(self.distinct_steps_mm)

    @property
    def gaps_mm(self) -> tuple[float, ...]:
        """The steps that are much longer than the usual one."""
        steps = self.distinct_steps_mm
        return tuple(s for s in steps if s > GAP * float(np.median(steps)))

    @property
    def deviation(self) -> float:
        """The largest difference of a step (gaps aside) from the median, as a fraction of it; 0 within rounding."""
        steps = np.array(self.distinct_steps_mm)
        if steps.size == 0:
            return 0.0
        median = float(np.median(steps))
        worst = float(abs(steps[steps <= GAP * median] - median).max())
        return 0.0 if worst <= max(STEP_TOLERANCE * median, STEP_ROUNDING_MM) else worst / median

    @property
    def uniform(self) -> bool:
        """Whether the slices can stand in a volume as they are, one for each z."""
        return self.deviation == 0 and not self.gaps_mm

    @property
    def tilted(self) -> bool:
        """Whether the slices are stacked off their normal."""
        return self.tilt_degrees > NO_TILT_DEGREES

    @property
    def coverage_mm(self) -> float:
        """From the first image's position to the last one's."""
        return max(self.positions_mm) - min(self.positions_mm)

    @property
    def step_mm(self) -> float:
        """The mean step: coverage over the number of steps; 0 for a single image."""
        return self.coverage_mm / max(1, len(self.positions_mm) - 1)


def numbers(dataset: Dataset, keyword: str, count: int) -> Vector | None:
    """Return the finite numbers of a DS element, shape (count,); None where there are not exactly so many."""
    try:
        values = np.array([float(v) for v in strings(dataset, keyword)])
    except ValueError:
        return None
    return values if values.shape == (count,) and bool(np.isfinite(values).all()) else None


def pixel_spacing(dataset: Dataset) -> Vector | None:
    """Return Pixel Spacing, mm, shape (2,); None where it is none, or that of no scanner."""
    found = numbers(dataset, "PixelSpacing", 2)
    if found is None or (found < PIXEL_MM[0]).any() or (found > PIXEL_MM[1]).any():
        return None
    return found


def plane(dataset: Dataset) -> Plane | None:
    """Return the plane of an image; None without a position, or without two orthogonal unit vectors as orientation."""
    position, orientation = numbers(dataset, "ImagePositionPatient", 3), numbers(dataset, "ImageOrientationPatient", 6)
    if position is None or orientation is None or (abs(position) > MOST_AWAY_MM).any():
        return None
    row, column = orientation[:3], orientation[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    # Four decimals are what some scanners write; a worse orientation is damaged, not rounded.
    if (abs(lengths - 1) > 1e-2).any() or abs(float(row @ column)) > 1e-2:
        return None
    row = row / lengths[0]
    column = column - (column @ row) * row
    return Plane(position, row, column / np.linalg.norm(column))


def stack(planes: Sequence[Plane]) -> SliceStack:
    """Return the stack that the planes form along the normal of the first of them."""
    normal = planes[0].normal
    points = np.array([p.position for p in planes])
    along = points @ normal
    low, high = points[along.argmin()], points[along.argmax()]
    line, length = high - low, float(np.linalg.norm(high - low))
    if length == 0:
        return SliceStack(tuple(map(float, along)), 0.0, 0.0)
    direction = line / length
    tilt = float(np.degrees(np.arccos(min(1.0, float(direction @ normal)))))
    offsets = (points - low) - np.outer((points - low) @ direction, direction)
    return SliceStack(tuple(map(float, along)), tilt, float(np.linalg.norm(offsets, axis=1).max()))


def degrees_from_axial(image: Plane) -> float:
    """Return the largest angle of rows, columns and normal from the patient's axes, in degrees.

    Each is taken to the nearest in-plane axis.

    0 for any axial image, however it is flipped or turned by quarter turns; 90 for a coronal or sagittal one.
    """
    row, column, normal = abs(image.along_row), abs(image.along_column), abs(image.normal)
    in_plane = max(min(row[0], column[1]), min(row[1], column[0]))
    return float(np.degrees(np.arccos(np.clip(min(in_plane, normal[2]), 0.0, 1.0))))


def positions_mm(headers: Sequence[ImageHeader]) -> list[float]:
    """Sorted positions, mm, along the normal of the first image, of the headers that have a plane."""
    planes = [p for p in (plane(h.dataset) for h in headers) if p is not None]
    return sorted(stack(planes).positions_mm) if planes else []
