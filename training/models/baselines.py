"""Baselines: the simplest models that one would otherwise use. They are compared with, never combined or served.

A model that does not discriminate better than age, sex and lung function, or than one volume, has nothing to add to
them, however good its AUC looks alone. Each is a Cox model, fitted and judged on the same folds as the arms.
"""

from collections.abc import Sequence

from training.models.tabular_arm import RadiomicsArm
from training.models.tabular_models import Candidate
from training.models.tabular_settings import RadiomicsSettings

#: From next to no penalty on: a handful of predictors needs little.
_CANDIDATES = tuple(Candidate("cox", {"penalizer": penalizer}) for penalizer in (0.001, 0.01, 0.1, 1.0))
_SETTINGS = RadiomicsSettings(models=("cox",), stability=0.0, correlation=1.0)


def make_baseline(name: str, columns: Sequence[str]) -> RadiomicsArm:
    """Return the arm of a baseline on these features."""
    return RadiomicsArm(_SETTINGS, name=name, columns=tuple(columns), candidates=_CANDIDATES)
