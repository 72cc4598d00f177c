"""`explanation.json` of a run: what each arm looks at, out of fold, for the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.data.outcomes import middle_of
from training.data.splits import Nested
from training.explanation import tabular_explanation
from training.explanation.settings import ExplanationSettings
from training.explanation.tabular_explanation import FeatureExplanation
from training.models.arm import DEEP_ARMS, Data, Rows
from training.progress_type import ProgressCallback

NAME = "explanation.json"
_SEED = 20260301


@dataclass(frozen=True)
class RunExplanation:
    """Of a run.

    Attributes:
        years: the horizon that is explained.
        scans: how many, one a patient.
        features: by tabular arm, the most important ones first.
        networks: by network arm, the content of a `NetworkExplanation`.
    """

    years: int
    scans: int
    features: Mapping[str, tuple[FeatureExplanation, ...]]
    networks: Mapping[str, Mapping[str, object]]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"


def explain(
    run: Path,
    data: Data,
    horizons: Sequence[int],
    arms: Sequence[str],
    settings: ExplanationSettings,
    progress: ProgressCallback,
) -> RunExplanation:
    """Explain the fold models of a run's arms, each on scans of patients that it has not seen.

    Args:
        run: the run folder.
        data: all its scans.
        horizons: of the run, years; the middle one is explained.
        arms: names.
        settings: how many scans.
        progress: told about each arm.
    """
    years = middle_of(horizons)
    interval = data.outcomes.edges.index(float(years)) - 1
    drawn = Nested.load(run / "splits.json")
    sample = _sample(data, settings.scans)
    folds = [drawn.fold(number, data.patients) for number in range(len(drawn.outer))]
    parts = [(train, np.intersect1d(test, sample)) for train, test in folds]
    features: dict[str, tuple[FeatureExplanation, ...]] = {}
    networks: dict[str, Mapping[str, object]] = {}
    for number, arm in enumerate(arms if settings.scans else ()):
        progress(f"Explaining {arm}", number, len(arms))
        folder = run / "arms" / arm
        if arm in DEEP_ARMS:
            from training.explanation import network_explanation  # noqa: PLC0415  (torch: only where there are networks)

            found = network_explanation.explain_arm(
                folder, data, [test for _, test in parts], interval, settings.pictures
            )
            if found is not None:
                networks[arm] = asdict(found)
        elif arm == "radiomics":
            features[arm] = tabular_explanation.explain_arm(folder, data, parts, interval, _SEED)
    return RunExplanation(years, len(sample), features, networks)


def _sample(data: Data, count: int) -> Rows:
    """Return one scan each of some patients, drawn once for all arms; rising."""
    rng = np.random.default_rng(_SEED)
    order = rng.permutation(len(data.cohort))
    patients = np.array(data.patients)[order]
    first = np.sort(np.unique(patients, return_index=True)[1])[:count]
    return np.sort(order[first]).astype(np.intp)


def read(run: Path) -> RunExplanation | None:
    """Return the explanation of a run folder; None where it has none, as older runs have."""
    path = run / NAME
    if not path.is_file():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    features = {
        arm: tuple(
            FeatureExplanation(**{**one, "values": tuple(one["values"]), "shapley": tuple(one["shapley"])})
            for one in found
        )
        for arm, found in stored["features"].items()
    }
    return RunExplanation(stored["years"], stored["scans"], features, stored["networks"])
