"""Kinds of model on harmonised features: fitted with lifelines, scikit-learn or torch, kept as plain numbers.

The plain numbers are those of `dicomnode.analysis.risk.tabular`, which computes the risk here and on the node.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from pandas.errors import Pandas4Warning
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from dicomnode.analysis.risk.tabular import Floats
from dicomnode.errors import DicomnodeError
from training.data.outcomes import EDGES_YEARS, Outcomes, interval_targets, negative_log_likelihood
from training.models.grid_settings import GridSettings

_HALF_A_DAY = 0.5 / 365.25
_LEARNING_RATE = 0.05
#: Where to begin; lifelines takes smaller steps where one went wrong, and gives up when they are tiny.
_NEWTON_STEPS = (0.95, 0.5, 0.1)


#: lifelines makes the corner of |b| round: what the penalty takes out is left with about 1e-8.
_ZERO = 1e-5


class FitError(DicomnodeError):
    """A model cannot be fitted to these scans."""


@dataclass(frozen=True)
class Candidate:
    """A kind of model with its settings."""

    kind: str
    settings: Mapping[str, float]

    @property
    def name(self) -> str:
        """For tables: "cox penalizer=0.03", "cox penalizer=0.03 l1_ratio=0.5"."""
        return " ".join([self.kind, *(f"{k}={v:g}" for k, v in self.settings.items())])


def candidates_of(grid: GridSettings) -> tuple[Candidate, ...]:
    """Return every point of the grid, of each kind: what the inner folds choose from."""
    cox = [
        Candidate("cox", {"penalizer": penalizer, **({"l1_ratio": ratio} if ratio > 0 else {})})
        for ratio in grid.l1_ratios
        for penalizer in grid.penalizers
    ]
    boosting = [Candidate("boosting", {"trees": trees, "leaves": leaves}) for trees, leaves in grid.boosting]
    network = [Candidate("network", {"steps": steps, "decay": 1.0}) for steps in grid.steps]
    return (*cox, *boosting, *network)


#: By the default settings.
CANDIDATES = candidates_of(GridSettings())


def fit(candidate: Candidate, values: Floats, outcomes: Outcomes, seed: int) -> dict[str, object]:
    """Fit a candidate.

    Args:
        candidate: what to fit.
        values: harmonised features (scans, features), without gaps.
        outcomes: of the same scans.
        seed: of everything random.

    Returns:
        The `predictor` of `dicomnode.analysis.risk.tabular`.

    Raises:
        FitError: it cannot be fitted to these scans.
    """
    settings = candidate.settings
    if candidate.kind == "cox":
        return plain_cox(
            fit_cox(values, outcomes, settings["penalizer"], settings.get("l1_ratio", 0.0)), outcomes.edges
        )
    if candidate.kind == "boosting":
        return plain_boosting(fit_boosting(values, outcomes, int(settings["trees"]), int(settings["leaves"]), seed))
    return plain_network(fit_network(values, outcomes, int(settings["steps"]), settings["decay"], seed))


def fit_cox(values: Floats, outcomes: Outcomes, penalizer: float, l1_ratio: float = 0.0) -> CoxPHFitter:
    """Fit proportional hazards with an elastic-net penalty (Zou and Hastie 2005) to values (scans, features).

    The mean log partial likelihood less penalizer * (l1_ratio * |b| + (1 - l1_ratio) / 2 * b^2). What happens after the
    last edge does not count.

    Args:
        values: harmonised features.
        outcomes: of the same scans.
        penalizer: strength of the penalty.
        l1_ratio: 0, ridge: all features stay; 1, lasso: few do.

    Raises:
        FitError: it does not converge.
    """
    last = outcomes.edges[-1]
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
    frame["years"] = np.clip(outcomes.years, _HALF_A_DAY, last)
    frame["event"] = outcomes.event & (outcomes.years <= last)
    for step_size in _NEWTON_STEPS:
        fitter = CoxPHFitter(penalizer=penalizer, l1_ratio=l1_ratio)
        with warnings.catch_warnings():
            # lifelines 0.30 relies on copies that pandas 4 will make in another way: nothing that could be done here.
            warnings.simplefilter("ignore", Pandas4Warning)
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                return fitter.fit(frame, "years", "event", fit_options={"step_size": step_size})
            except (ConvergenceWarning, ConvergenceError):
                continue
    raise FitError(
        f"the Cox model with penalizer {penalizer:g} does not converge: use larger ones, or add other models to "
        "radiomics.models"
    )


def plain_cox(fitter: CoxPHFitter, edges: Sequence[float] = EDGES_YEARS) -> dict[str, object]:
    """Coefficients and the baseline's cumulative hazard at the edges, with lifelines' centring worked in.

    Features that a penalty with l1_ratio > 0 takes out have the coefficient 0.
    """
    coefficients = fitter.params_.to_numpy(np.float64).copy()
    if fitter.l1_ratio > 0:
        coefficients[np.abs(coefficients) < _ZERO] = 0.0
    stored = fitter.baseline_cumulative_hazard_
    at = np.interp(edges[1:], [0.0, *stored.index], [0.0, *stored.iloc[:, 0]])
    centre = float(fitter._norm_mean.to_numpy(np.float64) @ coefficients)
    return {"kind": "cox", "coefficients": coefficients.tolist(), "baseline": (at * np.exp(-centre)).tolist()}


def person_periods(values: Floats, outcomes: Outcomes) -> tuple[Floats, Floats, Floats]:
    """Make one row for each scan and interval begun, from values (scans, features).

    Returns:
        Features and the interval's number, (rows, features + 1); targets, 0 or 1, and weights, both (rows,).
    """
    targets, weights = interval_targets(outcomes)
    scan, interval = np.nonzero(weights > 0)
    rows = np.column_stack([values[scan], interval.astype(np.float64)])
    return rows, targets[scan, interval].astype(np.float64), weights[scan, interval].astype(np.float64)


def fit_boosting(
    values: Floats, outcomes: Outcomes, trees: int, leaves: int, seed: int
) -> HistGradientBoostingClassifier:
    """Fit gradient boosting of the discrete hazard to the person-periods of values (scans, features)."""
    model = HistGradientBoostingClassifier(
        learning_rate=_LEARNING_RATE,
        max_iter=trees,
        max_leaf_nodes=leaves,
        min_samples_leaf=20,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )
    rows, target, weight = person_periods(values, outcomes)
    return model.fit(rows, target, weight)


def plain_boosting(model: HistGradientBoostingClassifier) -> dict[str, object]:
    """Return the trees' nodes.

    scikit-learn keeps them in private attributes: the parity test notices when they change.
    """
    trees = []
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            {
                "feature": np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)).tolist(),
                "threshold": np.where(leaf, 0.0, nodes["num_threshold"]).tolist(),
                "left": nodes["left"].astype(np.int64).tolist(),
                "right": nodes["right"].astype(np.int64).tolist(),
                "value": nodes["value"].tolist(),
            }
        )
    return {"kind": "boosting", "baseline": float(model._baseline_prediction.item()), "trees": trees}


def fit_network(values: Floats, outcomes: Outcomes, steps: int, decay: float, seed: int) -> nn.Sequential:
    """Fit a small logistic-hazard network to values (scans, features), in double precision for numpy to repeat."""
    targets, weights = (torch.from_numpy(a).double() for a in interval_targets(outcomes))
    inputs = torch.from_numpy(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = nn.Linear(values.shape[1], 16)
        output = nn.Linear(16, targets.shape[1])
        net = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.3), output).double()
        with torch.no_grad():
            observed = (targets.sum(0) + 0.5) / (weights.sum(0) + 1)
            output.weight.mul_(0.1)
            output.bias.copy_(torch.logit(observed.clamp(1e-4, 0.9)))
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=decay)
        for _ in range(steps):
            loss = negative_log_likelihood(net(inputs), targets, weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


def plain_network(net: nn.Sequential) -> dict[str, object]:
    """Weights and biases, layer by layer."""
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    layers = [{"weight": la.weight.detach().tolist(), "bias": la.bias.detach().tolist()} for la in linear]
    return {"kind": "network", "layers": layers}
