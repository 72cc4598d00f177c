"""Whether the best setting of an arm lies at the edge of its grid: then the grid does not bracket it.

Read from what each fold has written down (`fit.json`), so that reports of older runs tell it too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Kind of model -> the number that is told of it, and the key of the settings that holds its grid.
_AXES = {"cox": ("penalizer", "penalizers"), "boosting": ("trees", "boosting"), "network": ("steps", "steps")}
_SMALLEST, _LARGEST = "smallest", "largest"


def at_edge(arm: str, fits: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a warning for each setting that most outer folds chose at one edge of its grid; none where there is none.

    A grid of a single value is a decision, not a search. Nor is a kind of penalty (`l1_ratios`) judged, which has ends
    of its own, ridge and lasso.

    Args:
        arm: its name.
        fits: content of `fit.json` of each outer fold.
    """
    table = arm if arm in ("radiomics", "encoder") else "deep"
    found = Counter(edge for fit in fits for edge in (_networks(fit) if "best_epoch" in fit else _tabular(fit)))
    return tuple(
        f"{arm}: {what} was chosen in {count} of {len(fits)} outer folds, the {end} of the grid: the best may lie "
        f"beyond it; widen {table}.{key} {'upwards' if end == _LARGEST else 'downwards'} and run again"
        for (what, end, key), count in found.items()
        if 2 * count > len(fits)
    )


def _tabular(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    kind, chosen = _parsed(str(fit.get("chosen", "")))
    if kind not in _AXES:
        return
    axis, key = _AXES[kind]
    tried = {values[axis] for other, values in map(_parsed, fit.get("inner_loss", ())) if other == kind}
    if len(tried) > 1 and chosen.get(axis) in (ends := {min(tried): _SMALLEST, max(tried): _LARGEST}):
        yield f"{kind} {axis} = {chosen[axis]:g}", ends[chosen[axis]], key


def _networks(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the last epoch where it was the best: the network was still learning when it was stopped."""
    most = (fit.get("settings") or {}).get("epochs", 0)
    if most > 1 and fit["best_epoch"] == most:
        yield f"the last epoch, {most},", _LARGEST, "epochs"


def _parsed(name: str) -> tuple[str, dict[str, float]]:
    """Return kind and numbers of a candidate's name (`Candidate.name`)."""
    kind, *settings = name.split() or [""]
    pairs = (one.partition("=") for one in settings)
    return kind, {key: float(value) for key, _, value in pairs}
