"""A bundle asked about the scans of a cohort as the node asks it: volume, features, scanner, prior scan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.measures import quantify
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.queries import Answer, PriorScan, Question
from dicomnode.analysis.risk.tabular import BATCH_PARTS, names_of
from dicomnode.errors import RefusedError, UsageError
from dicomnode.registry_format.volumes import read_volume
from training.models.arm import Data, Rows
from training.progress_type import ProgressCallback

#: Regions that can be measured again on a volume that a node has kept: all their voxels are in it, unchanged. It is cut
#: to the lungs' box, so grids begin elsewhere: that moves the border of rim and core, and all that radiomics resamples.
WHOLE = ("lungs", "right", "left")


def as_served(data: Data, row: int, prior: PriorScan | None = None, *, imaged: bool = True) -> Question:
    """Return a scan of the cohort in the form that a bundle takes it in.

    Args:
        data: the scans.
        row: which.
        prior: of the same patient.
        imaged: whether the bundle looks at the image; otherwise an empty one stands for it, and no volume is needed.

    Raises:
        UsageError: the registry keeps no volume of it.
    """
    path = data.volume(row)
    if imaged and path is None:
        name = data.cohort["scan"].iloc[row]
        raise UsageError(f"the registry has no volume for the scan {name}: export it with registry.volumes = true")
    volume, labels = read_volume(path) if imaged and path is not None else _nothing()
    features = {str(name): float(value) for name, value in _finite(data, row)}
    scanner = {part: str(data.cohort[part].iloc[row]) for part in BATCH_PARTS}
    return Question(volume, labels, features, scanner, prior)


def _nothing() -> tuple[Volume, Labels]:
    """Return an image of one voxel, which is not lung."""
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    empty = np.full((1, 1, 1), -1024, np.int16)
    return Volume(empty, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), axes, frames=()), np.zeros((1, 1, 1), np.uint8)


def answers(
    bundle: Bundle, data: Data, progress: ProgressCallback, *, imaged: bool = True
) -> Iterator[tuple[int, Answer | RefusedError]]:
    """Ask a bundle about every scan, the earlier first, as networks remember a prior scan; yield rows and answers.

    Args:
        bundle: what to ask.
        data: the scans.
        progress: told about each scan.
        imaged: as `as_served` takes it.

    Raises:
        UsageError: a scan lacks its volume.
    """
    codes: dict[int, Mapping[str, tuple[float, ...]]] = {}
    order = np.argsort(data.cohort["date"].to_numpy(), kind="stable")
    for done, row in enumerate(map(int, order), start=1):
        before = data.prior(row)
        years = float(data.cohort["years_since_prior"].iloc[row])
        known = None if before not in codes else PriorScan(years, bundle.sha256, codes[before])
        try:
            answer = bundle.models.answer(as_served(data, row, known, imaged=imaged))
        except RefusedError as error:
            yield row, error
        else:
            codes[row] = answer.codes
            yield row, answer
        progress(f"Applying {bundle.name} {bundle.version}", done, len(order))


def _finite(data: Data, row: int) -> Iterator[tuple[object, float]]:
    return ((name, value) for name, value in data.features.iloc[row].items() if np.isfinite(value))


def looked_at(data: Data, folds: Rows) -> list[int]:
    """Return the rows that parity looks at: a first scan of a patient in each fold."""
    return [
        next(int(row) for row in np.flatnonzero(folds == fold) if data.prior(int(row)) is None)
        for fold in np.unique(folds)
    ]


def largest_disagreement(bundle: Bundle, data: Data, folds: Rows, predicted: dict[str, NDArray[np.float64]]) -> float:
    """How far the bundle's fold models, asked as the node asks, lie from what training has predicted with them.

    Args:
        bundle: of the run.
        data: the run's scans.
        folds: of each scan, the outer fold by whose model it was predicted.
        predicted: by arm, the out-of-fold risks, (scans, intervals).

    Returns:
        The largest absolute difference of a probability, over the rows of `looked_at` and every arm.
    """
    largest = 0.0
    for row in looked_at(data, folds):
        fold = int(folds[row])
        for arm, found in bundle.models.by_arm(as_served(data, row)).items():
            if fold < len(found):  # a bundle may keep fewer networks than there are folds
                largest = max(largest, float(np.abs(found[fold] - predicted[arm][row]).max()))
    return largest


@dataclass(frozen=True)
class Remeasured:
    """A number of the run's table beside what the node's code measures on the stored volume."""

    name: str
    in_table: float
    measured: float

    @property
    def difference(self) -> float:
        """Relative to the table's number, or to 1 where that is smaller; infinite where nothing was measured."""
        found = abs(self.in_table - self.measured) / max(1.0, abs(self.in_table))
        return found if np.isfinite(found) else float("inf")


def remeasured(data: Data, row: int) -> Iterator[Remeasured]:
    """Yield the quantities of `WHOLE` of a scan, those that the table has.

    Raises:
        UsageError: the registry keeps no volume of it.
    """
    scan = as_served(data, row)
    found = names_of({k: v for k, v in quantify.by_region(scan.volume, scan.labels).items() if k in WHOLE}, {})
    for name, value in scan.features.items():
        if name.startswith(tuple(f"quantities.{region}." for region in WHOLE)):
            yield Remeasured(name, value, found.get(name, float("nan")))
