"""The arms that look at images: a slice encoder, attention over the slices, discrete-time hazards.

A fold's folder holds `job.*` (what was asked for), `model.safetensors` and `fit.json`. The network is fitted on the
first inner pair's fit rows, and the pair's validation rows say after how many epochs it is best (`stopping`, a folder
of its own); for so many it is then fitted on all training rows (`DeepSettings.refit`).
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk.network import HazardNet, risk
from dicomnode.errors import UsageError
from training.models.arm import Data, Rows
from training.models.deep import fit as loop
from training.models.deep import settings as deep_settings
from training.models.deep.distributed import Ranks, alone
from training.models.deep.job import FitJob
from training.models.deep.prepared_slices import prepare_all
from training.models.deep.settings import DeepSettings
from training.progress_type import ProgressCallback

#: In a fold's folder: the fit that finds out after how many epochs the network is best.
STOPPING = "stopping"


@dataclass(frozen=True)
class FittedNetwork:
    """A network that predicts from the prepared slices of its job."""

    net: HazardNet
    job: FitJob
    ranks: Ranks

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Cumulative risk at the end of each interval: (rows, intervals)."""
        found = loop.logits(self.net, self.job, rows, self.ranks.device)
        return risk(found.double()).numpy()


@dataclass(frozen=True)
class DeepArm:
    """An arm of networks on one backbone."""

    name: str
    settings: DeepSettings

    def fit(
        self,
        data: Data,
        train: Rows,
        inner: Sequence[tuple[Rows, Rows]],
        folder: Path,
        seed: int,
        progress: ProgressCallback,
    ) -> FittedNetwork:
        """As `arms.Arm.fit`.

        Raises:
            UsageError: a scan has no volume, no death to learn from, or a setting does not fit this machine.
            RefusedError: a scan has no lungs.
            ValueError: the inner rows overlap, or do not lie in the training rows.
        """
        if not inner:
            raise UsageError(f"{self.name} needs an inner fold (fit, validate) for early stopping")
        fit, validate = inner[0]
        if set(fit) & set(validate) or not set(fit) | set(validate) <= set(train):
            raise ValueError("the inner rows must be disjoint and a subset of the training rows")
        job = self._job(data, fit, validate, seed, progress)
        ranks = alone(self.settings.device)
        if self.settings.refit:
            stopping = folder / STOPPING
            self._finish(job, stopping, ranks, progress)
            # Only its epochs are of use: a network may be hundreds of megabytes, for each fold.
            (stopping / loop.WEIGHTS).unlink(missing_ok=True)
            job = replace(job, fit=train, validate=train[:0], stop_after=loop.best_epoch(stopping))
        self._finish(job, folder, ranks, progress)
        return FittedNetwork(loop.load_network(folder, job).to(ranks.device), job, ranks)

    def _finish(self, job: FitJob, folder: Path, ranks: Ranks, progress: ProgressCallback) -> None:
        """Fit the job's network into its folder, unless that holds it."""
        if loop.finished(folder, job):
            return
        job.save(folder)
        if self.settings.processes == 1:
            loop.fit(job, folder, ranks, progress)
        else:
            _torchrun(folder, self.settings.processes, progress)

    def _job(self, data: Data, fit: Rows, validate: Rows, seed: int, progress: ProgressCallback) -> FitJob:
        """Return the job over all scans of `data`; whose outcomes are looked at, its rows say."""
        rows = range(len(data.cohort))
        volumes = [volume for row in rows if (volume := data.volume(row)) is not None]
        if without := len(rows) - len(volumes):
            raise UsageError(
                f"{without} of {len(rows)} scans have no stored volume, which {self.name} needs: export the registry "
                "with volumes, exclude these scans from the cohort, or remove this arm from `arms`"
            )
        outcomes = data.outcomes
        for part, chosen in (("fit", fit), ("validation", validate)):
            last = outcomes.edges[-1]
            if not (outcomes.event[chosen] & (outcomes.years[chosen] <= last)).any():
                raise UsageError(f"no death within {last:g} years among {len(chosen)} {part} scans")
        before = [data.prior(row) if self.settings.prior else None for row in rows]
        prior = np.array([-1 if b is None else b for b in before], np.intp)
        years = data.cohort["years_since_prior"].to_numpy(np.float64, na_value=np.nan)
        if odd := int((~np.isfinite(years) & (prior >= 0)).sum()):
            raise ValueError(f"{odd} scans have a prior scan but no interval to it")
        cache = self.settings.cache or data.registry / "prepared"
        return FitJob(
            backbone=self.name,
            settings=self.settings,
            seed=seed,
            scans=prepare_all(volumes, self.settings.spec, cache, self.settings.cores, progress),
            prior=prior,
            years=np.where(prior >= 0, years, np.nan),
            outcomes=outcomes,
            fit=fit,
            validate=validate,
        )


def make(name: str, table: Mapping[str, object]) -> DeepArm:
    """Return the arm of a backbone with the table `[deep]` of run.toml.

    Raises:
        UsageError: a key is unknown or a value does not fit.
    """
    return DeepArm(name, deep_settings.read(table))


def _torchrun(folder: Path, processes: int, progress: ProgressCallback) -> None:
    """Fit the folder's job in several processes on this machine.

    Raises:
        UsageError: they failed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "training.models.deep.torchrun_main", str(folder)]
    errors = folder / "torchrun.log"
    with errors.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                done, total, what = line.rstrip("\n").split(" ", 2)
                progress(what, int(done), int(total))
        code = process.wait()
    if code:
        raise UsageError(f"{processes} processes failed to fit the network (exit status {code}): see {errors}")
