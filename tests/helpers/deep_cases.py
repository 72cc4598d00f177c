"""A tiny cohort with volumes for the networks: box-shaped lungs, whose density tells the outcome."""

from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w
import torch
from torch import nn

from dicomnode.analysis.risk.backbones import BACKBONES
from dicomnode.analysis.risk.network import HazardNet
from training.data.outcomes import Outcomes
from training.data.registry_folder import SCANS
from training.models.arm import Data
from training.run.run import run as run_all
from training.run.settings import load

#: Small enough for a step in a fraction of a second.
SPEC = {"spacing_mm": 8.0, "canvas": [32, 32], "slices": 4}


def tiny_encoder(name: str) -> tuple[nn.Module, int]:
    """In place of `backbones.encoder`: one convolution, with a batch norm and with dropout."""
    assert name in BACKBONES
    layers = (nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8


def bright_is_risk(net: HazardNet) -> HazardNet:
    """Set a network upon `tiny_encoder` so that brightness is risk: its first filter alone sees, and sees that."""
    with torch.no_grad():
        for weights in (net.encoder[0].weight, net.encoder[0].bias, net.head.hazard.weight):
            weights.zero_()
        net.encoder[0].weight[0] = 1.0
        net.head.hazard.weight[:, 0] = 0.1
    return net


TABLE: dict[str, object] = {
    "spec": SPEC,
    "epochs": 3,
    "batch": 4,
    "device": "cpu",
    "workers": 1,
    "precision": "float32",
}


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
                    "prior_scan": f"P{number}-0" if index else "",
                    "years_since_prior": 1.25 if index else np.nan,
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


def registry(folder: Path, patients: int = 12, made_by: str = "synthetic") -> Path:
    """The same scans as a registry folder with two quantities and a texture of each, and `outcomes.csv`."""
    frame = cohort(folder, patients).cohort
    rows, outcomes = [], []
    for row in frame.itertuples():
        first = row.prior_scan == ""
        rows.append(
            {
                **dict.fromkeys(SCANS, ""),
                **{"patient": row.patient, "scan": row.scan, "volume": row.volume, "age_years": "60", "sex": "F"},
                **{"date": "2015-01-01" if first else "2016-04-01", "manufacturer": "GE", "model": "one"},
                **{"slice_thickness_mm": "20", "spacing_z_mm": "20", "kernel_family": "medium"},
            }
        )
        if first:
            died = "2017-07-01" if row.event else ""
            outcomes.append(f"{row.patient},{died},{died or '2021-01-01'},")
    pd.DataFrame(rows)[list(SCANS)].to_csv(folder / "scans.csv", index=False)
    dense = np.array([row.event for row in frame.itertuples()], float)
    rng = np.random.default_rng(1)
    features = {
        "scan": frame["scan"],
        "quantities.lungs.mean_hu": -850 + 190 * dense + rng.normal(0, 20, len(frame)),
        "quantities.lungs.haa_percent": 5 + 40 * dense + rng.normal(0, 15, len(frame)),
        "radiomics.lungs.original_firstorder_Energy": rng.normal(1e6, 1e5, len(frame)) * (1 + dense),
    }
    pd.DataFrame(features).to_parquet(folder / "features.parquet", index=False)
    (folder / "registry.toml").write_text(f'format = 1\nmade_by = "{made_by}"\ncreated = "2024-01-01"\n', "utf-8")
    lines = ["patient,death_date,last_contact_date,transplant_date", *outcomes]
    (folder / "outcomes.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def run(
    folder: Path, arms: tuple[str, ...] = ("radiomics", "resnet18"), made_by: str = "synthetic", **deep: object
) -> Path:
    """A run of two folds on such a registry, up to its ensemble."""
    registry(folder / "registry", made_by=made_by)
    settings = {
        "registry": "registry",
        "outcomes": "registry/outcomes.csv",
        "out": "run",
        "arms": list(arms),
        "splits": {"outer": 2, "inner": 2},
        "radiomics": {"models": ["cox"], "correlation": 1.0, "stability": 0.0},
        "deep": {**TABLE, "epochs": 2, "batch": 2, **deep},
    }
    (folder / "run.toml").write_text(tomli_w.dumps(settings), "utf-8")
    read = load(folder / "run.toml")
    return run_all(read, tomli_w.dumps(settings), lambda *_: None, until="ensemble")
