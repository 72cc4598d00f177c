"""The arm on measured numbers: radiomics, quantities, their change; the kind of model is chosen by the inner folds.

In the fold's folder: `inner.json`, the loss of each candidate on the inner folds, written as they come; `model.json`,
the model as plain numbers (`dicomnode.analysis.risk.tabular`); `fit.json`, what was chosen and left out, written last.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dicomnode.analysis.risk import tabular
from dicomnode.analysis.risk.tabular import TabularModel, batch_name
from dicomnode.errors import UsageError
from training.data.outcomes import EDGES_YEARS, loss_of_risk
from training.data.splits import assert_disjoint
from training.features import harmonise
from training.files import digest, write_json
from training.models import tabular_models
from training.models.arm import Data, Rows
from training.models.grid_settings import GridSettings
from training.models.tabular_models import CANDIDATES, Candidate, FitError, candidates_of
from training.models.tabular_settings import RadiomicsSettings
from training.progress_type import ProgressCallback


def make(table: Mapping[str, object]) -> "RadiomicsArm":
    """Return the arm with the settings of a table.

    Raises:
        UsageError: a setting is unknown or does not fit.
    """
    try:
        settings = RadiomicsSettings.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"radiomics.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return RadiomicsArm(settings, candidates=candidates_of(settings))


@dataclass(frozen=True)
class FittedRadiomics:
    """A model and the scans that it may be asked about."""

    model: TabularModel
    data: Data

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Cumulative risk at the end of each interval: (rows, intervals)."""
        harmoniser = self.model.harmoniser
        values = self.data.features[list(harmoniser.features)].to_numpy(np.float64)[rows]
        return self.model.risk(values, batches_of(self.data, rows, harmoniser.combat_by))


@dataclass(frozen=True)
class RadiomicsArm:
    """See the module.

    Attributes:
        settings: see there.
        name: of the arm.
        columns: the features to learn from; empty: all of the families of the settings.
        candidates: what the inner folds choose from, of the kinds of the settings.
    """

    settings: RadiomicsSettings
    name: str = "radiomics"
    columns: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = CANDIDATES

    def fit(
        self,
        data: Data,
        train: Rows,
        inner: Sequence[tuple[Rows, Rows]],
        folder: Path,
        seed: int,
        progress: ProgressCallback,
    ) -> FittedRadiomics:
        """See `training.models.arm.Arm`.

        Raises:
            UsageError: there is no feature to learn from.
            FitError: no model could be fitted.
        """
        columns = self.columns_of(data)
        key = self._key(data, train, inner, columns, seed)
        done = _stored(folder / "fit.json", key)
        if done is None:
            scores = self._scores(data, inner, columns, folder, seed, key, progress)
            training = self.prepared(data, train, columns)
            chosen, model = _fit_best(self.candidates, scores, data, training, seed)
            write_json(folder / "model.json", model)
            left_out = training.choice.left_out
            write_json(
                folder / "fit.json",
                {
                    "key": key,
                    "chosen": chosen,
                    "inner_loss": scores,
                    "left_out": left_out,
                    "repeated": training.choice.repeated,
                },
            )
        return FittedRadiomics(tabular.read(folder / "model.json"), data)

    def columns_of(self, data: Data) -> list[str]:
        """Return the features to learn from.

        Raises:
            UsageError: there is none.
        """
        prefixes = tuple(f"{family}." for family in self.settings.families)
        columns = list(self.columns) or [str(c) for c in data.features if str(c).startswith(prefixes)]
        if not columns:
            families = ", ".join(self.settings.families)
            raise UsageError(f"there are no features of the families {families}: see radiomics.families and [features]")
        return columns

    def _scores(
        self,
        data: Data,
        inner: Sequence[tuple[Rows, Rows]],
        columns: list[str],
        folder: Path,
        seed: int,
        key: str,
        progress: ProgressCallback,
    ) -> dict[str, list[float]]:
        """Return the loss of each candidate on each inner fold (none if it fails).

        What inner.json has is not repeated.
        """
        candidates = [c for c in self.candidates if c.kind in self.settings.models]
        stored = _stored(folder / "inner.json", key) or {"scores": {}}
        scores: dict[str, list[float]] = stored["scores"]
        if len(scores) < len(candidates):
            for fit, validate in inner:
                assert_disjoint(data.patients, fit, validate)
            prepared = [self.prepared(data, fit, columns) for fit, _ in inner]
        for number, candidate in enumerate(candidates):
            progress("Selecting a radiomics model", number, len(candidates))
            if candidate.name not in scores:
                scores[candidate.name] = _losses(candidate, data, prepared, inner, seed)
                write_json(folder / "inner.json", {"key": key, "scores": scores})
        progress("Selecting a radiomics model", len(candidates), len(candidates))
        return scores

    def prepared(self, data: Data, rows: Rows, columns: list[str]) -> "_Training":
        """Return rows to learn from, with the features that remain, harmonised."""
        features = data.features[columns].iloc[rows]
        batches = batches_of(data, rows, self.settings.combat)
        choice = harmonise.fit(
            features,
            batches,
            harmonise.repetitions_of(
                [data.patients[row] for row in rows],
                data.cohort["date"].iloc[rows].to_list(),
                self.settings.stability_days,
            ),
            combat_by=self.settings.combat,
            stability=self.settings.stability,
            correlation=self.settings.correlation,
        )
        raw = features[list(choice.harmoniser.features)].to_numpy(np.float64)
        return _Training(rows, choice, choice.harmoniser.apply(raw, batches))

    def _key(self, data: Data, train: Rows, inner: Sequence[tuple[Rows, Rows]], columns: list[str], seed: int) -> str:
        """Names everything that decides the result."""
        seen = hashlib.sha256(data.features[columns].to_numpy(np.float64)[train].tobytes())
        seen.update(data.outcomes.years[train].tobytes() + data.outcomes.event[train].tobytes())
        scans = data.cohort["scan"].to_numpy()
        rows = [scans[r].tolist() for r in (train, *(side for pair in inner for side in pair))]
        edges = () if data.outcomes.edges == EDGES_YEARS else (data.outcomes.edges,)  # folds of older runs stay known
        kinds = [c.name for c in self.candidates]  # they name the grid
        settings = self.settings.model_dump(exclude=set(GridSettings.model_fields) - {"models"})
        return digest(settings, columns, rows, seed, seen.hexdigest(), kinds, *edges)


@dataclass(frozen=True)
class FitTimes:
    """What one fold of a tabular arm takes, as measured.

    Attributes:
        prepare_s: choosing and harmonising features once.
        candidates_s: fitting each candidate once.
        model_bytes: of model.json, about.
    """

    prepare_s: float
    candidates_s: Mapping[str, float]
    model_bytes: int

    def fold_s(self, inner: int) -> float:
        """Return the seconds of a fold with so many inner folds: each candidate in each, the best one once more."""
        tried = sum(self.candidates_s.values())
        return (inner + 1) * self.prepare_s + inner * tried + max(self.candidates_s.values(), default=0.0)


def time_fit(arm: RadiomicsArm, data: Data, rows: Rows, seed: int) -> FitTimes:
    """Fit the quickest candidate of each kind once, and tell from it what the others take.

    Boosting takes time by its trees, a network by its steps; what does not converge counts as it did.

    Raises:
        UsageError: there is no feature to learn from.
    """
    columns = arm.columns_of(data)
    start = time.monotonic()
    training = arm.prepared(data, rows, columns)
    prepare_s = time.monotonic() - start
    found: dict[str, float] = {}
    size = 0
    for kind in arm.settings.models:
        tried = sorted((c for c in arm.candidates if c.kind == kind), key=_work)
        more = _work(tried[-1]) / _work(tried[0])
        start = time.monotonic()
        with suppress(FitError):
            size = max(size, round(len(json.dumps(_fit(tried[0], data, training, seed))) * more))
        took = time.monotonic() - start
        found |= {c.name: took * _work(c) / _work(tried[0]) for c in tried}
    return FitTimes(prepare_s, found, size)


def _work(candidate: Candidate) -> float:
    """How much a candidate has to do, in a unit of its kind."""
    return candidate.settings.get("trees") or candidate.settings.get("steps") or 1.0


@dataclass(frozen=True)
class _Training:
    """Rows to learn from, harmonised by what was learnt from them: values (rows, features)."""

    rows: Rows
    choice: harmonise.Choice
    values: NDArray[np.float64]


def _fit(candidate: Candidate, data: Data, training: _Training, seed: int) -> dict[str, object]:
    """Return the content of model.json."""
    return {
        "format": tabular.FORMAT,
        "edges_years": list(data.outcomes.edges),
        **training.choice.harmoniser.to_dict(),
        "predictor": tabular_models.fit(candidate, training.values, data.outcomes[training.rows], seed),
    }


def _losses(
    candidate: Candidate, data: Data, prepared: Sequence[_Training], inner: Sequence[tuple[Rows, Rows]], seed: int
) -> list[float]:
    """On the rows that each inner fold validates on; empty if the candidate cannot be fitted."""
    losses = []
    for training, (_, validate) in zip(prepared, inner, strict=True):
        try:
            model = tabular.from_dict(_fit(candidate, data, training, seed))
        except FitError:
            return []
        losses.append(loss_of_risk(FittedRadiomics(model, data).predict(validate), data.outcomes[validate]))
    return losses


def _fit_best(
    candidates: Sequence[Candidate], scores: Mapping[str, list[float]], data: Data, training: _Training, seed: int
) -> tuple[str, dict[str, object]]:
    """Fit the candidate of the lowest mean loss, or the next one where that fails. Its name, the content of model.json.

    Raises:
        FitError: none can be fitted.
    """
    for name in sorted((n for n in scores if scores[n]), key=lambda n: float(np.mean(scores[n]))):
        try:
            return name, _fit(next(c for c in candidates if c.name == name), data, training, seed)
        except FitError:
            continue
    raise FitError("no model could be fitted to the training scans: see radiomics.models and radiomics.correlation")


def batches_of(data: Data, rows: Rows, by: Sequence[str]) -> list[str]:
    """Return the batch of each row, as `Harmoniser.apply` takes it."""
    if not by:
        return [""] * len(rows)
    scans = data.cohort[list(by)].iloc[rows].to_dict("records")
    return [batch_name(by, scan) for scan in scans]


def _stored(path: Path, key: str) -> dict[str, Any] | None:
    """Return what a call with the same key has left; None where there is nothing or it is another call's."""
    if not path.is_file():
        return None
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored if stored.get("key") == key else None
