"""Whether networks gain by being fitted again on all training patients (`deep.refit`), on a synthetic registry.

`python -m tests.benchmarks.refit REGISTRY --out FOLDER`, after `training synthetic --patients 240 --out REGISTRY`.

Each draw learns from other patients, and is judged on those left over. Of the three inner folds two are learnt from and
one stops; the refit takes the same stop.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w
import torch
from lifelines.utils import concordance_index
from scipy.stats import spearmanr

from training.data.outcomes import loss_of_risk
from training.models.arm import Data, Rows
from training.models.deep.arm import STOPPING, make
from training.run.run import read_data, run
from training.run.settings import load

TABLE: dict[str, object] = {
    "spec": {"spacing_mm": 8.0, "canvas": [32, 40], "slices": 4},
    "epochs": 20,
    "patience": 6,
    "learning_rate": 5e-4,
    "workers": 1,
}


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def prepared(registry: Path, out: Path) -> Data:
    """Return the registry's cohort, as a run makes it."""
    settings = {
        "registry": str(registry.resolve()),
        "outcomes": str((registry / "outcomes.csv").resolve()),
        "out": str((out / "cohort").resolve()),
        "arms": ["resnet18"],
        "features": {"radiomics": False},
        "deep": TABLE,
    }
    text = tomli_w.dumps(settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.toml").write_text(text, "utf-8")
    folder = run(load(out / "run.toml"), text, quiet, "features")
    return read_data(folder, registry, (1, 3, 5))


def judged(data: Data, truth: pd.Series, patients: int, seed: int, folder: Path) -> dict[str, tuple[float, ...]]:
    """Return loss, Harrell's C, correlation with the true risk (Spearman) and epochs, without refit and with it."""
    of = data.cohort["patient"].to_numpy()
    drawn = np.random.default_rng(seed).permutation(np.unique(of))
    stops, fits = np.isin(of, drawn[: patients // 3]), np.isin(of, drawn[patients // 3 : patients])
    rows: tuple[Rows, Rows, Rows] = tuple(np.flatnonzero(m) for m in (fits | stops, fits, stops))  # type: ignore[assignment]
    train, fit, validate = rows
    others = np.flatnonzero(~(fits | stops))
    found = {}
    for refit in (False, True):
        place = folder / f"{patients}-{seed}-{refit}"
        if refit:  # the same stop, not fitted twice
            shutil.copytree(folder / f"{patients}-{seed}-False", place / STOPPING)
        network = make("resnet18", {**TABLE, "refit": refit}).fit(data, train, [(fit, validate)], place, seed, quiet)
        risk = network.predict(others)
        outcomes = data.outcomes[others]
        at5 = risk[:, 4]
        loss = loss_of_risk(risk, outcomes)
        c = concordance_index(outcomes.years, -at5, outcomes.event)
        known = spearmanr(at5, truth.loc[data.cohort["scan"].iloc[others]]).statistic
        epochs = json.loads((place / "fit.json").read_text("utf-8"))["best_epoch"]
        found["refit" if refit else "stopped"] = (loss, float(c), float(known), float(epochs))
    for refit in (False, True):
        shutil.rmtree(folder / f"{patients}-{seed}-{refit}")
    return found


def main() -> None:
    """Print a row for each draw, and the mean differences."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("registry", type=Path)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--patients", type=int, default=90, help="to learn from, the stopping third included")
    asked.add_argument("--seeds", type=int, nargs=2, default=(1, 10), help="first and last")
    given = asked.parse_args()
    torch.set_num_threads(1)
    data = prepared(given.registry, given.out)
    truth = pd.read_csv(given.registry / "truth.csv").set_index("scan")["risk_5y"]
    gains = []
    for seed in range(given.seeds[0], given.seeds[1] + 1):
        found = judged(data, truth, given.patients, seed, given.out)
        gains.append(np.subtract(found["refit"], found["stopped"]))
        print(seed, *(f"{name}: " + " ".join(f"{v:.4f}" for v in of) for name, of in found.items()), flush=True)
    mean, spread = np.mean(gains, axis=0), np.std(gains, axis=0, ddof=1) / len(gains) ** 0.5
    told = zip(("loss", "C", "correlation with the true risk"), mean, spread, strict=False)
    print(*(f"{what}: {m:+.4f} (standard error {s:.4f})" for what, m, s in told), sep="\n")


if __name__ == "__main__":
    main()
