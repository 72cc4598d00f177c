"""A scan's voxels in a registry: the lungs alone, as `volumes/SCAN.npz`.

The file holds `hu` (int16) and `labels` (uint8; 1 right, 2 left), both (z, y, x) as `analysis.arrays` says,
`spacing_mm` (z, y, x) and `origin_mm` (LPS x, y, z of the first voxel's centre).
"""

import io
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.errors import RefusedError, UsageError
from dicomnode.files import write_whole

#: Stands outside the lungs: air, which no preprocessing looks at.
OUTSIDE_HU = -1024
FOLDER = "volumes"
_VOLUME = re.compile(r"[0-9a-f]{32}\.npz")


def volume_name(scan: str) -> str:
    """Give the path of a scan's volume below its registry."""
    return f"{FOLDER}/{scan}.npz"


def is_volume(path: Path) -> bool:
    """Tell whether a path that stands in a row names a volume: anything else is neither read nor deleted."""
    return path.parent.name == FOLDER and _VOLUME.fullmatch(path.name) is not None and not path.is_symlink()


def lungs_alone(volume: Volume, labels: Labels) -> tuple[NDArray[np.int16], Labels, tuple[float, float, float]]:
    """Cut the box around the lungs, `OUTSIDE_HU` outside of them: nothing of face or body is kept.

    `analysis.risk.preprocess.prepare` gives the same of the box as of the whole. Measurements do not: radiomics look
    across the lungs' edge, and thirds, rim and core are found on a grid that begins elsewhere.

    Args:
        volume: in HU.
        labels: (z, y, x) as the volume; above 0 is lung.

    Returns:
        HU and labels of the box, (z, y, x), and the box's origin in the patient (x, y, z), mm.

    Raises:
        RefusedError: no-lungs.
    """
    from scipy import ndimage  # noqa: PLC0415  (`serve` reads names only, and scipy takes a quarter of a second)

    found = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not found:
        raise RefusedError("no-lungs", "no voxel is labelled as lung: there is nothing to keep")
    box = found[0]
    inside = labels[box]
    hu = np.where(inside > 0, volume.hu[box], np.int16(OUTSIDE_HU))
    steps = np.array([b.start for b in box]) * volume.spacing_mm
    x, y, z = np.array(volume.origin_mm) + steps @ np.array(volume.axes)
    return hu, inside, (float(x), float(y), float(z))


def write_volume(path: Path, volume: Volume, labels: Labels) -> None:
    """Write the lungs' voxels of a scan, whole or not at all; the rest of the image is not written.

    Args:
        path: the file, which is replaced.
        volume: the whole image, in HU.
        labels: (z, y, x) as the volume; above 0 is lung.

    Raises:
        RefusedError: no-lungs.
    """
    hu, inside, origin_mm = lungs_alone(volume, labels)
    packed = io.BytesIO()
    np.savez_compressed(
        packed, hu=hu, labels=inside, spacing_mm=np.array(volume.spacing_mm), origin_mm=np.array(origin_mm)
    )
    write_whole(path, packed.getvalue())


def read_volume(path: Path) -> tuple[Volume, Labels]:
    """Read a stored scan and its lung labels; of a synthetic one these are the phantom's truth.

    Raises:
        UsageError: the file is missing or is not such a scan.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            hu, labels = stored["hu"], stored["labels"]
            spacing = tuple(float(v) for v in stored["spacing_mm"])
            origin = tuple(float(v) for v in stored["origin_mm"])
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} is not a scan of a registry: {error}") from None
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(hu, spacing, origin, axes, frames=()), labels  # type: ignore[arg-type]
