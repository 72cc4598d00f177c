"""The volume record and the array types that the analysis shares. One module owns the axes: this one and `volume`.

Arrays of a volume have axes (z, y, x) along the patient's axes (DICOM PS3.3 C.7.6.2.1.1, LPS): index 0 of z is the
slice nearest the feet, y grows from anterior to posterior, x grows from the patient's right to the left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

HuArray = NDArray[np.int16]
Mask = NDArray[np.bool_]
#: 0 background, 1 right lung, 2 left lung (the numbers that lungmask uses).
Labels = NDArray[np.uint8]
RIGHT, LEFT = 1, 2
#: lungmask's numbers of the lobes (LTRCLobes); where they come from, and their check: `lungs.lobes`.
LOBES: Final[Mapping[str, int]] = {
    "left_upper_lobe": 1,
    "left_lower_lobe": 2,
    "right_upper_lobe": 3,
    "right_middle_lobe": 4,
    "right_lower_lobe": 5,
}


@dataclass(frozen=True)
class Frame:
    """One source image of the volume. `frame_number` counts from 1 and is None for a single-frame image."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None = None


@dataclass(frozen=True)
class InPlane:
    """How a source image's (rows, columns) became (y, x): first transposed, then flipped."""

    transposed: bool = False
    flip_y: bool = False
    flip_x: bool = False


@dataclass(frozen=True)
class SourceGrid:
    """Where the source images lie in a volume that was resampled from them: inside of it, all in voxels of the volume.

    Attributes:
        z: of each frame, feet first.
        y, x: of each frame's first voxel, after turning.
        shape: of a source image after turning, (y, x).
    """

    z: tuple[float, ...]
    y: tuple[float, ...]
    x: tuple[float, ...]
    shape: tuple[int, int]

    def sample(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the labels of `array` (z, y, x) nearest to the source images' own voxels, as (frame, y, x)."""
        sampled = np.empty((len(self.z), *self.shape), np.uint8)
        for frame, starts in enumerate(zip(self.z, self.y, self.x, strict=True)):
            z, y, x = (int(np.floor(start + 0.5)) for start in starts)
            sampled[frame] = array[z, y : y + self.shape[0], x : x + self.shape[1]]
        return sampled


@dataclass(frozen=True)
class Volume:
    """A CT volume in Hounsfield units.

    Attributes:
        hu: shape (z, y, x), int16, HU, axes as this module says; padding and out-of-field pixels are at most -1024.
        spacing_mm: (z, y, x).
        origin_mm: LPS coordinates (x, y, z) of the centre of voxel [0, 0, 0].
        axes: 3x3, rows are the LPS unit vectors along which z, y, x grow (an axial volume: close to the axes).
        frames: the source images, feet first: that of each z, unless the volume was resampled.
        in_plane: how each source image was turned.
        source: where the source images lie in it, if it was resampled; None: `frames[z]` is the slice z.
    """

    hu: HuArray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    frames: tuple[Frame, ...]
    in_plane: InPlane = InPlane()
    source: SourceGrid | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        z, y, x = self.spacing_mm
        return z * y * x / 1000.0

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the source images in the order of the frames, each once."""
        return tuple(dict.fromkeys(f.path for f in self.frames))

    def to_source(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an array (z, y, x) as it lies on the source images, in their rows and columns: (frame, row, column).

        The frames are those of `frames`. Of a resampled volume, each source voxel takes the nearest voxel's value.
        """
        if self.source is not None:
            array = self.source.sample(array)
        if self.in_plane.flip_y:
            array = array[:, ::-1, :]
        if self.in_plane.flip_x:
            array = array[:, :, ::-1]
        if self.in_plane.transposed:
            array = array.transpose(0, 2, 1)
        return np.ascontiguousarray(array)
