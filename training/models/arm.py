"""What an arm of the model is: it learns hazards from rows of a cohort and predicts the risk of other rows.

Every arm (radiomics, and the networks on images) has this one shape, so that a run fits, stacks and evaluates them
alike. `training.models.registry` is the one place where names become arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.outcomes import Outcomes
from training.progress_type import ProgressCallback

#: Positions of scans in `Data`, rising.
Rows = NDArray[np.intp]

DEEP_ARMS = ("resnet18", "densenet121", "swin_t")
#: The arms that need the scans' volumes.
VOLUME_ARMS = (*DEEP_ARMS, "encoder")
ARMS = ("radiomics", *VOLUME_ARMS)


@dataclass(frozen=True)
class Data:
    """All scans of a run; row i is the same scan everywhere.

    Attributes:
        registry: folder; the cohort's `volume` is a path relative to it ("" where the scan has none).
        cohort: `cohort.parquet`, index 0, 1, 2, …, without `time_years` and `event`.
        features: `features.parquet` without `scan`: float64, NaN where a scan lacks the feature.
        outcomes: years to death or last contact, shape (scans,). What an arm learns from: see `hidden_outside`.
    """

    registry: Path
    cohort: pd.DataFrame
    features: pd.DataFrame
    outcomes: Outcomes

    def __post_init__(self) -> None:
        if not len(self.cohort) == len(self.features) == len(self.outcomes.years):
            counts = f"{len(self.cohort)}, {len(self.features)} and {len(self.outcomes.years)}"
            raise ValueError(f"cohort, features and outcomes have {counts} rows: they must have the same scans")

    def hidden_outside(self, rows: Rows) -> "Data":
        """Return the same scans with the outcomes of all other rows unknown (censored on the day of the scan).

        What is not there cannot leak: an arm that looks at rows it should not sees nothing.
        """
        years, event = np.zeros_like(self.outcomes.years), np.zeros_like(self.outcomes.event)
        years[rows], event[rows] = self.outcomes.years[rows], self.outcomes.event[rows]
        return replace(self, outcomes=Outcomes(years, event, self.outcomes.edges))

    def of(self, rows: Rows) -> "Data":
        """Return some of the scans alone, renumbered; `rows` rise and take whole patients."""
        return Data(
            self.registry,
            self.cohort.iloc[rows].reset_index(drop=True),
            self.features.iloc[rows].reset_index(drop=True),
            self.outcomes[rows],
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each row."""
        return tuple(self.cohort["patient"])

    def volume(self, row: int) -> Path | None:
        """Load the stored volume of a row (see `registry_format.volumes.read_volume`); None where there is none."""
        name = str(self.cohort["volume"].iloc[row])
        return self.registry / name if name else None

    def prior(self, row: int) -> int | None:
        """Return the row of the same patient's latest prior scan; None where there is none."""
        scan = str(self.cohort["prior_scan"].iloc[row])
        return int(np.flatnonzero(self.cohort["scan"].to_numpy() == scan)[0]) if scan else None


class Fitted(Protocol):
    """An arm that has learnt."""

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Cumulative risk of death at the end of each interval of `Outcomes.edges`: (rows, intervals)."""


class Arm(Protocol):
    """A way to learn risk from scans."""

    @property
    def name(self) -> str:
        """As in `ARMS`."""

    def fit(
        self,
        data: Data,
        train: Rows,
        inner: Sequence[tuple[Rows, Rows]],
        folder: Path,
        seed: int,
        progress: ProgressCallback,
    ) -> Fitted:
        """Learn from the rows `train`; nothing about other rows' outcomes is looked at.

        Args:
            data: all scans.
            train: what to learn from.
            inner: (fit, validate) pairs of rows inside `train`, disjoint by patient: to choose settings, or to stop.
            folder: the arm's own folder for this fold. Resumable: what it holds from the same call is not computed
                again, so a second call with a finished folder only loads.
            seed: of everything random.
            progress: told about each step.
        """
