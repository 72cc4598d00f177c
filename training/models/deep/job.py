"""All that is needed to fit one network, as files: whichever process fits it, alone or one of several, reads the same.

`job.json` holds settings and seed, `job.npz` the rows. The digest over both tells whether a folder's network or
checkpoint is of this job.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.files import write_whole
from training.data.outcomes import EDGES_YEARS, Outcomes
from training.models.arm import Rows
from training.models.deep.prepared_slices import Prepared
from training.models.deep.settings import DeepSettings


@dataclass(frozen=True)
class FitJob:
    """One network to fit. Rows are positions in `scans`, which holds the scans used here and their priors.

    Attributes:
        backbone, settings, seed: what, how, and with which random numbers.
        scans: prepared slices.
        prior: row of the latest prior scan, -1 for none; (scans,).
        years: since the prior scan, NaN for none; (scans,).
        outcomes: of the scans; those of rows in neither `fit` nor `validate` are not used.
        fit, validate: rows to learn from, and to stop by.
        stop_after: epochs of a fit that nothing else stops, and whose `validate` is empty; 0: the validation rows do.
    """

    backbone: str
    settings: DeepSettings
    seed: int
    scans: Prepared
    prior: NDArray[np.intp]
    years: NDArray[np.float64]
    outcomes: Outcomes
    fit: Rows
    validate: Rows
    stop_after: int = 0

    @property
    def intervals(self) -> int:
        """How many intervals the hazard has."""
        return len(self.outcomes.edges) - 1

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides the network's weights.

        Not over what only decides how fast they come, or where files lie: those with ImageNet weights are known by
        their own digest.
        """
        settings = self.settings.model_dump(
            mode="json", exclude={"workers": True, "cache": True, "refit": True, "pretrained": {"__all__": {"path"}}}
        )
        settings["earlier"] = settings.pop("prior")  # its former name: no network is fitted anew for it
        text = json.dumps({"backbone": self.backbone, "seed": self.seed, "settings": settings}, sort_keys=True)
        # The names of prepared files hold a hash of the volume's state.
        parts = [text, *(f"{file.parent.name}/{file.name}" for file in self.scans.files)]
        arrays = (self.prior, self.years, self.outcomes.years, self.outcomes.event, self.fit, self.validate)
        hashed = hashlib.sha256("\n".join(parts).encode())
        for array in arrays:
            hashed.update(np.ascontiguousarray(array).tobytes())
        if self.outcomes.edges != EDGES_YEARS:  # networks of older runs stay known
            hashed.update(str(self.outcomes.edges).encode())
        if self.stop_after:
            hashed.update(f"stop after {self.stop_after}".encode())
        return hashed.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the job's two files."""
        described = {
            "backbone": self.backbone,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "edges": list(self.outcomes.edges),
            "stop_after": self.stop_after,
            "files": [str(file) for file in self.scans.files],
        }
        write_whole(folder / "job.json", json.dumps(described, indent=1))
        arrays = {
            "prior": self.prior,
            "years": self.years,
            "time": self.outcomes.years,
            "event": self.outcomes.event,
            "fit": self.fit,
            "validate": self.validate,
        }
        write_whole(folder / "job.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))

    @classmethod
    def load(cls, folder: Path) -> "FitJob":
        """Return the job that `save` wrote."""
        described = json.loads((folder / "job.json").read_text("utf-8"))
        with np.load(folder / "job.npz", allow_pickle=False) as stored:
            return cls(
                backbone=described["backbone"],
                settings=DeepSettings.model_validate(described["settings"]),
                seed=described["seed"],
                scans=Prepared(tuple(Path(name) for name in described["files"])),
                prior=stored["prior"],
                years=stored["years"],
                outcomes=Outcomes(stored["time"], stored["event"], tuple(described.get("edges", EDGES_YEARS))),
                fit=stored["fit"],
                validate=stored["validate"],
                stop_after=described.get("stop_after", 0),
            )
