"""Which grid of penalised Cox models finds more, on drawn registries whose hazard is known.

`python -m tests.benchmarks.cox_grids`.

Forty correlated features; the logarithm of the hazard is made by three of them (sparse), by all a little (dense), or by
none. Each grid chooses by three inner folds, and is judged on 1,000 other patients.
"""

import argparse

import numpy as np
from lifelines.utils import concordance_index

from dicomnode.analysis.risk.tabular import Cox, Floats
from training.data.outcomes import Outcomes, loss_of_risk
from training.models import tabular_models

RIDGE = tuple((penalizer, 0.0) for penalizer in (0.1, 0.3, 1.0, 3.0))
GRIDS = {
    "ridge": RIDGE,
    "and elastic net": (*RIDGE, (0.03, 0.5), (0.1, 0.5), (0.3, 0.5)),
    "and lasso": (*RIDGE, (0.03, 1.0), (0.1, 1.0)),
}
TRUTHS = ("sparse", "dense", "none")
FEATURES, JUDGED, INNER = 40, 1000, 3
Setting = tuple[float, float]


def draw(truth: str, patients: int, seed: int) -> tuple[Floats, Outcomes]:
    """Return features (patients, features) and outcomes."""
    rng = np.random.default_rng(seed)
    weights = np.zeros(FEATURES)
    if truth == "sparse":
        weights[:3] = 0.7, 0.5, -0.5
    elif truth == "dense":
        weights = rng.normal(0, 0.12, FEATURES)
    shared = rng.normal(size=(patients, 4)) @ rng.normal(size=(4, FEATURES))
    values = 0.3 * shared + rng.normal(size=(patients, FEATURES))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    death, lost = rng.exponential(8 * np.exp(-values @ weights)), rng.uniform(0.5, 9, patients)
    return values, Outcomes(np.minimum(death, lost), death <= lost)


def risks(values: Floats, outcomes: Outcomes, setting: Setting, of: Floats) -> Floats:
    """Return the cumulative risks of others by a model fitted with a setting: (patients, intervals)."""
    plain = tabular_models.plain_cox(tabular_models.fit_cox(values, outcomes, *setting), outcomes.edges)
    return Cox(np.asarray(plain["coefficients"]), np.asarray(plain["baseline"])).risk(of)


def judged(truth: str, patients: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return loss and Harrell's C of what each grid chooses."""
    values, outcomes = draw(truth, patients + JUDGED, seed)
    rows = np.arange(patients)
    folds = np.random.default_rng(seed).permutation(patients) % INNER
    losses: dict[Setting, float] = {}
    for setting in dict.fromkeys(s for grid in GRIDS.values() for s in grid):
        found = []
        for fold in range(INNER):
            fit, validate = rows[folds != fold], rows[folds == fold]
            try:
                predicted = risks(values[fit], outcomes[fit], setting, values[validate])
                found.append(loss_of_risk(predicted, outcomes[validate]))
            except tabular_models.FitError:
                found.append(np.inf)
        losses[setting] = float(np.mean(found))
    told = {}
    others = np.arange(patients, patients + JUDGED)
    for name, grid in GRIDS.items():
        predicted = risks(values[rows], outcomes[rows], min(grid, key=losses.__getitem__), values[others])
        of = outcomes[others]
        told[name] = loss_of_risk(predicted, of), float(concordance_index(of.years, -predicted[:, -1], of.event))
    return told


def main() -> None:
    """Print loss and C of each grid, the mean over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    for truth in TRUTHS:
        found = [judged(truth, asked.patients, seed) for seed in range(asked.seeds)]
        for name in GRIDS:
            loss, c = np.mean([one[name] for one in found], axis=0)
            print(f"{truth}, {asked.patients} patients, {name}: loss {loss:.4f}, C {c:.3f}", flush=True)


if __name__ == "__main__":
    main()
