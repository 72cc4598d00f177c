"""A tiny cohort with volumes for the networks: box-shaped lungs, whose density tells the outcome."""

from pathlib import Path

import numpy as np
import pandas as pd

from training.arms import Data
from training.outcome import Outcomes

#: Small enough for a step in a fraction of a second.
SPEC = {"spacing_mm": 8.0, "canvas": [32, 32], "slices": 4}
TABLE: dict[str, object] = {"spec": SPEC, "epochs": 3, "batch": 4, "device": "cpu", "workers": 1}


def write_volume(path: Path, hu: float, seed: int) -> None:
    """Two boxes of lung in a body of water."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((8, 20, 24), np.uint8)
    labels[1:7, 4:16, 2:10], labels[1:7, 4:16, 14:22] = 1, 2
    values = np.where(labels > 0, hu + rng.normal(0, 30, labels.shape), 20).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, hu=values, labels=labels, spacing_mm=(20.0, 10.0, 10.0), origin_mm=(0.0, 0.0, -80.0))


def cohort(folder: Path, patients: int = 8) -> Data:
    """Two scans a patient; in every other one the lungs are dense and the patient dies in the third year."""
    rows = []
    for number in range(patients):
        dies = number % 2 == 0
        for index in range(2):
            scan = f"P{number}-{index}"
            write_volume(folder / "volumes" / f"{scan}.npz", -650 + 20 * index if dies else -850, 10 * number + index)
            rows.append(
                {
                    "scan": scan,
                    "patient": f"P{number}",
                    "volume": f"volumes/{scan}.npz",
                    "earlier_scan": f"P{number}-0" if index else "",
                    "years_since_earlier": 1.25 if index else np.nan,
                    "time_years": 2.5 - index if dies else 6.0 - index,
                    "event": dies,
                }
            )
    table = pd.DataFrame(rows)
    outcomes = Outcomes(table["time_years"].to_numpy(), table["event"].to_numpy())
    return Data(folder, table, pd.DataFrame(index=table.index), outcomes)


def inner(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, and of these the rows to fit and to validate on: the last two patients are left out."""
    number = data.cohort["patient"].str[1:].astype(int).to_numpy()
    last = number.max()
    train = np.flatnonzero(number < last - 1)
    return train, np.flatnonzero(number < last - 3), np.flatnonzero((number >= last - 3) & (number < last - 1))
