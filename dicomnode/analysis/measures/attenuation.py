"""Where the lungs are dense or emphysematous, voxel by voxel: what `quantify` counts, as a map."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Volume
from dicomnode.analysis.measures.quantify import HAA_HU, LAA_BELOW_HU

#: The numbers in the map: high and low attenuation, by lung.
AREAS: Final = {"right_high": 1, "left_high": 2, "right_low": 3, "left_low": 4}


def areas(volume: Volume, labels: Labels) -> NDArray[np.uint8]:
    """Return the map, shape (z, y, x): numbers as in `AREAS`, 0 elsewhere.

    High: from -600 to -250 HU, both included. Low: below -950 HU. Each voxel by its own value, without smoothing, so
    that the voxels of a lung's areas are those of `Quantities.haa_percent` and `laa950_percent`.

    Args:
        volume: in HU.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    found = np.zeros(labels.shape, np.uint8)
    for z in np.flatnonzero(labels.any(axis=(1, 2))):
        hu = volume.hu[z]
        high = (hu >= HAA_HU[0]) & (hu <= HAA_HU[1])
        low = hu < LAA_BELOW_HU
        for side, name in ((RIGHT, "right"), (LEFT, "left")):
            inside = labels[z] == side
            found[z][inside & high] = AREAS[f"{name}_high"]
            found[z][inside & low] = AREAS[f"{name}_low"]
    return found
