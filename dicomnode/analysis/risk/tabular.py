"""Risk from measured numbers: a model kept as plain numbers in JSON, computed with numpy alone.

`training` fits such a model with lifelines, scikit-learn or torch, none of which is needed to serve it. The form:

```
format, edges_years
features          names, in the order of all lists below
combat            null, or how scanners are made alike: {"by": [...], "batches": {name: {"scale": [], "shift": []}}}
median            stands in for a missing value
low, high         limits to which a value is clipped (what training has seen)
mean, sd          what is subtracted, then divided by
predictor         one of
  {"kind": "cox", "coefficients": [...], "baseline": [cumulative hazard at each edge but the first]}
  {"kind": "boosting", "baseline": logit, "trees": [{"feature", "threshold", "left", "right", "value"}, ...]}
  {"kind": "network", "layers": [{"weight": [[...]], "bias": [...]}, ...]}
```
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.findings import Findings, Quantities
from dicomnode.errors import BundleError

FORMAT = 1
Floats = NDArray[np.float64]
#: What may decide whether two scans were acquired alike; see `batch_name`.
BATCH_PARTS = ("manufacturer", "model", "kernel_family")


class Predictor(Protocol):
    """From harmonised values to risk."""

    def risk(self, values: Floats) -> Floats:
        """Return the cumulative risk at the end of each interval, (scans, intervals), from (scans, features)."""


@dataclass(frozen=True)
class Cox:
    """Proportional hazards: risk(t) = 1 - exp(-H0(t) exp(coefficients . values)). `baseline` is H0 at the edges."""

    coefficients: Floats
    baseline: Floats

    def risk(self, values: Floats) -> Floats:
        """Return the cumulative risk at the end of each interval, (scans, intervals), from (scans, features)."""
        return -np.expm1(-np.exp(values @ self.coefficients)[:, None] * self.baseline)


@dataclass(frozen=True)
class Tree:
    """A decision tree by node: inner nodes send value <= threshold to `left`; leaves have feature -1."""

    feature: NDArray[np.intp]
    threshold: Floats
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: Floats

    def leaf_values(self, values: Floats) -> Floats:
        """Return the value of the leaf that each row of (rows, features) ends in."""
        node = np.zeros(len(values), np.intp)
        while (inner := np.flatnonzero(self.feature[node] >= 0)).size:
            at = node[inner]
            below = values[inner, self.feature[at]] <= self.threshold[at]
            node[inner] = np.where(below, self.left[at], self.right[at])
        return self.value[node]


@dataclass(frozen=True)
class Boosting:
    """Boosted trees of the hazard's logit. The interval's number (0, 1, …) is one more feature, the last."""

    baseline: float
    trees: tuple[Tree, ...]
    intervals: int

    def risk(self, values: Floats) -> Floats:
        """Return the cumulative risk at the end of each interval, (scans, intervals), from (scans, features)."""
        logits = np.empty((len(values), self.intervals))
        for interval in range(self.intervals):
            rows = np.column_stack([values, np.full(len(values), float(interval))])
            logits[:, interval] = self.baseline + sum(tree.leaf_values(rows) for tree in self.trees)
        return risk_of_logits(logits)


@dataclass(frozen=True)
class TabularNetwork:
    """A multilayer perceptron with ReLU that gives the logit of each interval's hazard."""

    layers: tuple[tuple[Floats, Floats], ...]

    def risk(self, values: Floats) -> Floats:
        """Return the cumulative risk at the end of each interval, (scans, intervals), from (scans, features)."""
        for number, (weight, bias) in enumerate(self.layers):
            values = (np.maximum(values, 0) if number else values) @ weight.T + bias
        return risk_of_logits(values)


def risk_of_logits(logits: Floats) -> Floats:
    """Return the cumulative risk of the logits of discrete hazards h, 1 - prod(1 - h); both (..., intervals)."""
    return -np.expm1(np.cumsum(-np.logaddexp(0, logits), axis=-1))


@dataclass(frozen=True)
class Harmoniser:
    """From raw values to what a predictor takes.

    Attributes:
        features: names of the values.
        combat_by: which of `BATCH_PARTS` name the batch; empty: scanners are not made alike.
        batches: name -> (scale, shift) of each feature.
        median, low, high, mean, sd: per feature.
    """

    features: tuple[str, ...]
    combat_by: tuple[str, ...]
    batches: Mapping[str, tuple[Floats, Floats]]
    median: Floats
    low: Floats
    high: Floats
    mean: Floats
    sd: Floats

    def apply(self, values: Floats, batches: Sequence[str]) -> Floats:
        """Values (scans, features; NaN: missing) made alike over scanners, completed, clipped and scaled.

        Args:
            values: in the order of `features`.
            batches: of each scan, by `batch_name`; one that training has not seen passes through.
        """
        values = values.copy()
        for name in set(batches) & set(self.batches):
            rows = np.array([b == name for b in batches])
            scale, shift = self.batches[name]
            values[rows] = values[rows] * scale + shift
        values = np.where(np.isnan(values), self.median, values)
        return (np.clip(values, self.low, self.high) - self.mean) / self.sd

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        batches = {k: {"scale": scale.tolist(), "shift": shift.tolist()} for k, (scale, shift) in self.batches.items()}
        return {
            "features": list(self.features),
            "combat": {"by": list(self.combat_by), "batches": batches} if self.combat_by else None,
            **{k: getattr(self, k).tolist() for k in ("median", "low", "high", "mean", "sd")},
        }


@dataclass(frozen=True)
class TabularModel:
    """A model of this module; `edges_years` are the ends of the hazard's intervals, the first edge 0."""

    edges_years: tuple[float, ...]
    harmoniser: Harmoniser
    predictor: Predictor

    def risk(self, values: Floats, batches: Sequence[str]) -> Floats:
        """Cumulative risk at the end of each interval, (scans, intervals), never falling; see `Harmoniser.apply`."""
        return self.predictor.risk(self.harmoniser.apply(values, batches))

    def predict(self, values: Mapping[str, float], batch: str) -> tuple[Floats, tuple[str, ...]]:
        """Risk of one scan (intervals,), and what a reader must know: "scanner-unknown", "features-missing: …".

        Args:
            values: by name; names that the model does not use are passed over.
            batch: by `batch_name`.
        """
        names = self.harmoniser.features
        row = np.array([[values.get(name, np.nan) for name in names]], np.float64)
        doubts = []
        if self.harmoniser.combat_by and batch not in self.harmoniser.batches:
            doubts.append("scanner-unknown")
        # A first scan has no change: that is no gap, training knew such scans too.
        missing = [n for n, v in zip(names, row[0], strict=True) if np.isnan(v) and not n.startswith("change.")]
        if missing:
            doubts.append(f"features-missing: {', '.join(missing)}")
        return self.risk(row, [batch])[0], tuple(doubts)


def batch_name(by: Sequence[str], scan: Mapping[str, object]) -> str:
    """Return the batch of a scan: its parts in one case, joined; "" where nothing of it is known."""
    parts = [str(scan.get(part) or "").strip().casefold() for part in by]
    return "|".join(parts) if any(p not in ("", "unknown") for p in parts) else ""


def features_of(findings: Findings) -> dict[str, float]:
    """All numbers of the findings by the names that training uses.

    `quantities.<region>.<name>`, `radiomics.<region>.<feature>`, `change.<measure>` (per year).
    """
    radiomics = {} if findings.radiomics is None else findings.radiomics.features
    found = names_of(findings.quantities, radiomics)
    if findings.change is not None:
        rates = {name: delta.per_year for name, delta in findings.change.measures.items()}
        found |= {f"change.{name}": rate for name, rate in rates.items() if rate is not None}
    return found


def names_of(quantities: Mapping[str, Quantities], radiomics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Measured numbers by region as one mapping: `quantities.<region>.<name>`, `radiomics.<region>.<feature>`."""
    found: dict[str, float] = {}
    for region, measured in quantities.items():
        found |= {f"quantities.{region}.{k}": float(v) for k, v in vars(measured).items() if v is not None}
    for region, features in radiomics.items():
        found |= {f"radiomics.{region}.{name}": float(value) for name, value in features.items()}
    return found


def read(path: Path) -> TabularModel:
    """Read a model.

    Raises:
        BundleError: the file is missing or is no such model.
    """
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path} is not a tabular model of format {FORMAT} ({error!r}): make it again") from None


def from_dict(stored: Mapping[str, Any]) -> TabularModel:
    """Return a model from the content of its JSON.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, OverflowError: it is none.
    """
    if stored["format"] != FORMAT:
        raise ValueError(f"format is {stored['format']!r}, this version reads {FORMAT}")
    edges, names = _floats(stored["edges_years"]), stored["features"]
    count = len(names)
    combat = stored["combat"] or {"by": [], "batches": {}}
    if odd := set(combat["by"]) - set(BATCH_PARTS):
        raise ValueError(f"combat is by {', '.join(map(str, odd))}, not by some of {', '.join(BATCH_PARTS)}")
    harmoniser = Harmoniser(
        features=tuple(map(str, names)),
        combat_by=tuple(combat["by"]),
        batches={
            name: (_floats(b["scale"], count), _floats(b["shift"], count)) for name, b in combat["batches"].items()
        },
        **{k: _floats(stored[k], count) for k in ("median", "low", "high", "mean", "sd")},
    )
    if not (np.all(harmoniser.sd > 0) and np.all(harmoniser.low <= harmoniser.high)):
        raise ValueError("sd must be above 0 and low not above high")
    return TabularModel(tuple(edges.tolist()), harmoniser, _predictor(stored["predictor"], count, len(edges) - 1))


def _floats(values: object, count: int | None = None) -> Floats:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or (count is not None and len(array) != count) or not np.isfinite(array).all():
        raise ValueError(f"expected {'a row of' if count is None else count} finite numbers, found shape {array.shape}")
    return array


def _predictor(stored: Mapping[str, Any], features: int, intervals: int) -> Predictor:
    kind = stored["kind"]
    if kind == "cox":
        baseline = _floats(stored["baseline"], intervals)
        if baseline[0] < 0 or np.any(np.diff(baseline) < 0):
            raise ValueError("baseline must be non-negative and non-decreasing")
        return Cox(_floats(stored["coefficients"], features), baseline)
    if kind == "boosting":
        trees = tuple(_tree(t, features + 1) for t in stored["trees"])
        return Boosting(float(stored["baseline"]), trees, intervals)
    if kind == "network":
        layers = tuple((np.asarray(la["weight"], np.float64), _floats(la["bias"])) for la in stored["layers"])
        widths = [features, *(len(bias) for _, bias in layers)]
        if [w.shape for w, _ in layers] != [(b, a) for a, b in pairwise(widths)] or widths[-1] != intervals:
            raise ValueError(f"layers of widths {widths} do not fit: features {features}, intervals {intervals}")
        return TabularNetwork(layers)
    raise ValueError(f"predictor {kind!r} is unknown")


def _tree(stored: Mapping[str, Any], features: int) -> Tree:
    integers = [np.asarray(stored[k], np.intp) for k in ("feature", "left", "right")]
    feature, left, right = integers
    inner = feature >= 0
    own = np.arange(len(feature))[inner]
    # Children that come after their parent: no way through the tree is endless.
    if np.any(feature >= features) or np.any(left[inner] <= own) or np.any(right[inner] <= own):
        raise ValueError("a tree's nodes are inconsistent")
    if max([*left[inner], *right[inner]], default=0) >= len(feature):
        raise ValueError("a node of a tree is missing")
    return Tree(
        feature, _floats(stored["threshold"], len(feature)), left, right, _floats(stored["value"], len(feature))
    )
