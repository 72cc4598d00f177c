"""How the patients of a run are split: by lot, by site, or in time.

- "patients": outer folds by lot, stratified by death.
- "sites": each site in turn is the outer fold, predicted by what was learnt at the others.
- "temporal": patients whose first scan lies on or after a cut are judged, by what was learnt from the others. The
  earlier ones are cross-fitted among themselves, so that the ensemble has out-of-fold predictions to learn from, and no
  model learns from a later patient.

A registry's dates are shifted by patient, and it knows no hospitals. `groups.csv` tells what a split needs beside it:
patient (as in the registry), and site, or first_scan (a date or a year), or both. Nothing of it is a predictor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dicomnode.errors import UsageError
from training.data import csv_tables, splits
from training.data.registry_folder import Registry
from training.data.splits import Nested

SplitKind = Literal["patients", "temporal", "sites"]
By = Literal["site", "manufacturer", "model", "kernel_family"]
GROUPS = "groups.csv"
#: What registry.toml says of dates that were not shifted.
TRUE_DATES = "true"
_MOST_SITES = 20


@dataclass(frozen=True)
class SplitAsked:
    """What the settings ask for (`[splits]`).

    Attributes:
        kind: see the module.
        outer, inner: how many folds; with sites, `outer` is not used.
        by: what a site is: a column of groups.csv or of the scans.
        groups: the file; None: groups.csv of the registry, where there is one.
        cut: first scans from this day or year on are the later ones; "": by `share`.
        share: of the patients, the earliest, that are learnt from.
    """

    kind: SplitKind = "patients"
    outer: int = 5
    inner: int = 3
    by: By = "site"
    groups: Path | None = None
    cut: str = ""
    share: float = 0.7


@dataclass(frozen=True)
class DrawnSplit:
    """A split, and how it came about: plain values, for the record."""

    nested: Nested
    facts: Mapping[str, object]


def _first_scan(text: str) -> date:
    if text.isdigit() and len(text) == 4:
        return date(int(text), 1, 1)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("is neither a year nor a date: write 2014 or 2014-05-31") from None


def _site(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: name the site, or 'unknown'")
    return csv_tables.words(text)


def groups_path(asked: SplitAsked, registry: Path) -> Path | None:
    """Return the file of groups that a split takes; None where there is none, or no need."""
    if asked.kind == "patients" or (asked.kind == "sites" and asked.by != "site"):
        return None
    own = registry / GROUPS
    return asked.groups or (own if own.is_file() else None)


def draw(frame: pd.DataFrame, registry: Registry, seed: int, asked: SplitAsked) -> DrawnSplit:
    """Split the patients of a cohort.

    Args:
        frame: of the cohort.
        registry: of its scans.
        seed: of the shuffles.
        asked: by the settings.

    Raises:
        UsageError: too few patients died for the folds, or what the split hangs on is not known.
    """
    patients, event = frame["patient"].to_list(), frame["event"].to_numpy(np.bool_)
    if asked.kind == "patients":
        return DrawnSplit(splits.nested(patients, event, seed, asked.outer, asked.inner), {"kind": "patients"})
    died = {p for p, e in zip(patients, event, strict=True) if e}
    first = frame.sort_values(["date", "scan"], kind="stable").drop_duplicates("patient").set_index("patient")
    path = groups_path(asked, registry.folder)
    known = _groups(path, first.index) if path is not None else pd.DataFrame(index=first.index)
    if asked.kind == "sites":
        return _sites(_site_of(asked, known, first), died, seed, asked)
    return _temporal(_first_day(known, first, registry), died, seed, asked)


def _groups(path: Path, patients: "pd.Index[str]") -> pd.DataFrame:
    """Return site and first_scan of each patient, as far as the file has them.

    Raises:
        UsageError: the file does not fit, or lacks patients of the cohort.
    """
    table = csv_tables.read(path, {"patient": csv_tables.name}, {"site": _site, "first_scan": _first_scan})
    first: dict[object, int] = {}
    for index in range(len(table)):
        table.once(index, "patient", first)
    found = pd.DataFrame(dict(table.columns)).set_index("patient")
    if missing := sorted(set(patients) - set(found.index)):
        raise UsageError(f"{path} lacks {len(missing)} of {len(patients)} patients of the cohort: add their rows")
    return found.loc[patients]


def _site_of(asked: SplitAsked, known: pd.DataFrame, first: pd.DataFrame) -> "pd.Series[str]":
    """Return the site of each patient, by the first scan where the scans tell it.

    Raises:
        UsageError: nothing tells it.
    """
    if asked.by != "site":
        return first[asked.by].fillna("").astype(str).str.strip().replace("", "unknown")
    if "site" not in known:
        raise UsageError(
            f'splits.kind = "sites": nothing says at which site a patient was scanned: put {GROUPS} with the columns '
            'patient, site into the registry, name such a file in splits.groups, or set splits.by = "manufacturer" to '
            "leave out one manufacturer at a time"
        )
    return known["site"].astype(str)


def _sites(site: "pd.Series[str]", died: set[str], seed: int, asked: SplitAsked) -> DrawnSplit:
    names = sorted(set(site))
    if not 2 <= len(names) <= _MOST_SITES:
        raise UsageError(
            f"splits: {len(names)} values of {asked.by}: a site is left out in turn, so that 2 to {_MOST_SITES} are "
            "needed: join small ones in groups.csv, or split by patients"
        )
    everyone = set(map(str, site.index))
    rng = np.random.default_rng(seed)
    outer = tuple(tuple(sorted(map(str, site.index[site == name]))) for name in names)
    inner = []
    for name, fold in zip(names, outer, strict=True):
        rest = everyone - set(fold)
        _enough(rest, died, asked.inner, f"without {asked.by} {name}")
        inner.append(splits.deal(rest, died, asked.inner, rng))
    facts = {
        "kind": "sites",
        "by": asked.by,
        "names": names,
        "patients": [len(fold) for fold in outer],
        "died": [len(set(fold) & died) for fold in outer],
    }
    return DrawnSplit(Nested(seed, outer, tuple(inner)), facts)


def _enough(patients: set[str], died: set[str], folds: int, where: str) -> None:
    for count, what in ((len(patients & died), "died"), (len(patients - died), "survived")):
        if count < folds:
            raise UsageError(
                f"splits: {where}, {count} patients {what}, and {folds} inner folds need as many: use fewer "
                "(splits.inner), or split by patients"
            )


def _first_day(known: pd.DataFrame, first: pd.DataFrame, registry: Registry) -> "pd.Series[pd.Timestamp]":
    """Return the true day of each patient's first scan; of a year, its first day.

    Raises:
        UsageError: the registry's dates are no calendar dates, and nothing else tells them.
    """
    if "first_scan" in known:
        return pd.to_datetime(known["first_scan"])
    stated = registry.provenance.dates
    if not (registry.synthetic or stated == TRUE_DATES):
        raise UsageError(
            f'splits.kind = "temporal": the dates of {registry.folder} are no calendar dates ({stated or "not stated"})'
            ", and before and after mean nothing in them. Give the year of each patient's first scan: "
            f"{GROUPS} in the registry, or splits.groups, with the columns patient, first_scan; or state "
            f'dates = "{TRUE_DATES}" in registry.toml if nobody has shifted them'
        )
    return pd.to_datetime(first["date"])


def _temporal(day: "pd.Series[pd.Timestamp]", died: set[str], seed: int, asked: SplitAsked) -> DrawnSplit:
    if asked.cut:
        cut = pd.Timestamp(_first_scan(asked.cut))
    else:
        cut = day.sort_values().iloc[min(int(np.ceil(asked.share * len(day))), len(day) - 1)]
    later = {str(p) for p in day.index[day >= cut]}
    earlier = {str(p) for p in day.index} - later
    shown = str(cut.date())
    if not (later & died and later - died):
        raise UsageError(
            f"splits: of {len(later)} patients first scanned from {shown} on, {len(later & died)} died: nothing can be "
            "judged in them: set an earlier splits.cut, or a smaller splits.share"
        )
    folds = max(2, asked.outer - 1)
    _enough(earlier, died, folds * asked.inner, f"before {shown}")
    rng = np.random.default_rng(seed)
    within = splits.deal(earlier, died, folds, rng)
    inner = [splits.deal(earlier, died, asked.inner, rng)]
    inner += [splits.deal(earlier - set(fold), died, asked.inner, rng) for fold in within]
    facts = {
        "kind": "temporal",
        "cut": shown,
        "earlier": len(earlier),
        "later": len(later),
        "later_died": len(later & died),
    }
    return DrawnSplit(Nested(seed, (tuple(sorted(later)), *within), tuple(inner), later=True), facts)


def cut_error(text: str) -> str:
    """Return what is wrong with a cut, "" if nothing is."""
    try:
        if text:
            _first_scan(text)
    except ValueError as error:
        return str(error)
    return ""


def statement(facts: Mapping[str, object]) -> str:
    """Return how it was split and what an interval then means, in a sentence; "" for folds by lot."""
    if facts.get("kind") == "sites":
        names, by = facts.get("names", ()), facts.get("by")
        told: Sequence[object] = names if isinstance(names, Sequence) else ()
        return (
            f"Split by {by}: each of {', '.join(map(str, told))} is predicted by models fitted on the others. The "
            f"intervals are over patients of these {len(told)}; of another one they say nothing."
        )
    if facts.get("kind") == "temporal":
        return (
            f"Split in time: fitted on {facts.get('earlier')} patients first scanned before {facts.get('cut')}, judged "
            f"on the {facts.get('later')} from then on ({facts.get('later_died')} died). The intervals are over the "
            "later patients, with the models as they are; the follow-up of the earlier ones was used in full, also "
            "what came after the cut."
        )
    return ""
