"""What an analysis will cost, known from the headers: judged before a pixel is decoded or an array is made."""

import math
from collections.abc import Sequence
from typing import Final

from dicomnode.errors import RefusedError
from dicomnode.words.numerals import apart, plural

#: What the analysis holds at least of each voxel at its peak, bytes: HU, labels, and working copies of them.
BYTES_PER_VOXEL: Final = 12
#: Without a limit of its own: as many voxels as 8,000 slices of 512 x 512, far beyond any chest.
_MOST_VOXELS: Final = 1 << 31
_GB = 1e9


def check(shape: Sequence[int], memory_bytes: int | None) -> None:
    """Refuse a volume that cannot be analysed in the memory there is.

    Args:
        shape: (z, y, x), voxels, as the headers claim it.
        memory_bytes: what the analysis may use; None for no limit but that of sense.

    Raises:
        RefusedError: "too-large".
    """
    voxels = math.prod(int(n) for n in shape)
    need = voxels * BYTES_PER_VOXEL
    if voxels <= _MOST_VOXELS and (memory_bytes is None or need <= memory_bytes):
        return
    size = " x ".join(str(int(n)) for n in shape)
    limit = "" if memory_bytes is None else f"; the limit is {memory_bytes / _GB:.1f} GB (worker.memory_gb)"
    raise RefusedError(
        "too-large",
        f"The volume has {size} voxels: its analysis takes {apart(need / _GB, (memory_bytes or 0) / _GB, 1)} GB "
        f"at least{limit}.",
    )


def too_large(why: str) -> RefusedError:
    """Return the refusal of a study that broke a limit while it was analysed."""
    return RefusedError("too-large", f"The study is too large: {why}.")


def nothing_left() -> RefusedError:
    """Return the refusal of a study out of which every object was taken."""
    return RefusedError("nothing-left", "Every object of the study was taken out of it.")


def died(times: int, how: str) -> RefusedError:
    """Return the refusal of a study at which the analysing process died so many times."""
    why = "an image provokes a fault in a decoder, or memory ran out"
    return RefusedError("analysis-died", f"The analysis of the study died {plural(times, 'time')} ({how}): {why}.")
