"""Single scans that the model judged worst: CLAIM's failure analysis, to be looked at one by one.

They stay in the run folder: a bundle travels farther than the patients' pseudonyms may.
"""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.outcomes import HORIZONS_YEARS, Outcomes, middle_of
from training.evaluation.censoring import Floats
from training.evaluation.records import Misjudged

#: So many of each kind.
MOST = 10
#: Around what tells of single scans in `report.md`.
BEGIN, END = "<!-- single scans -->", "<!-- end of single scans -->"
_LEFT_OUT = "Individual scans are listed only in the run's own report."


def worst(
    cohort: pd.DataFrame, outcomes: Outcomes, risk: Floats, years: int = middle_of(HORIZONS_YEARS)
) -> tuple[Misjudged, ...]:
    """Deaths within the horizon with the lowest risk, then survivors beyond it with the highest, the worst first.

    Each patient stands once among the deaths, and once among the survivors, with the scan that was judged worst.

    Args:
        cohort: scan, patient.
        outcomes: of its scans.
        risk: predicted, at the horizon: (scans,).
        years: the horizon, at which a prediction is held against what became of the patient.
    """
    died = outcomes.event & (outcomes.years <= years)
    scans, patients = cohort["scan"].to_numpy(), cohort["patient"].to_numpy()

    def chosen(which: NDArray[np.bool_], badness: Floats, died: bool) -> list[Misjudged]:
        order = np.lexsort((scans.astype(str), -badness))
        ranked = pd.Series(patients[order], index=order)[which[order]].drop_duplicates()
        return [Misjudged(str(scans[i]), died, float(risk[i]), float(outcomes.years[i])) for i in ranked.index[:MOST]]

    return (*chosen(died, 1 - risk, True), *chosen(outcomes.years > years, risk, False))


def without_single_scans(markdown: str) -> str:
    """Return a `report.md` without what it tells of single scans."""
    return re.sub(f"{BEGIN}.*?{END}", _LEFT_OUT, markdown, flags=re.DOTALL)
