"""Bundles asked about a site's scans as a node asks them: every member, its refusals and its doubts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.errors import RefusedError
from training.models import stacking
from training.progress_type import ProgressCallback
from training.release import node_predictions
from training.validation import site as sites
from training.validation.site import Site


@dataclass(frozen=True)
class ServedRisks:
    """What one bundle says of the scans of a site.

    Attributes:
        members: cumulative risk by member at the end of each interval, (scans, members, intervals).
        flags: how many scans the bundle has a doubt about, by its text.
    """

    bundle: Bundle
    members: NDArray[np.float64]
    flags: Mapping[str, int]

    @property
    def risks(self) -> NDArray[np.float64]:
        """Cumulative risk as a node reports it, the mean of the members: (scans, intervals)."""
        return np.asarray(self.members.mean(axis=1))


def ask(site: Site, bundles: Sequence[Bundle], progress: ProgressCallback) -> tuple[Site, tuple[ServedRisks, ...]]:
    """Ask bundles about a site's scans; return the scans that all of them answer for, and the answers.

    Args:
        site: the scans.
        bundles: what to ask.
        progress: told about each scan.

    Raises:
        UsageError: no scan gets a risk.
    """
    refused: dict[int, str] = {}
    answers: list[dict[int, NDArray[np.float64]]] = []
    doubts: list[dict[int, list[str]]] = []
    for bundle in bundles:
        found: dict[int, NDArray[np.float64]] = {}
        flags: dict[int, list[str]] = {}
        asked = node_predictions.answers(bundle, site.of_bundle(bundle), progress, imaged=bundle.models.imaged)
        for row, answer in asked:
            if isinstance(answer, RefusedError):
                refused.setdefault(row, f"{bundle.name} {bundle.version} gives no risk ({answer.code}: {answer.text})")
                continue
            found[row] = answer.risks
            flags[row] = [f"{flag.code}: {flag.text}" for flag in answer.flags]
        answers.append(found)
        doubts.append(flags)
    rows = [row for row in range(len(site.frame)) if row not in refused]
    rest = sites.kept(site, rows, refused) if refused else site
    return rest, tuple(
        ServedRisks(
            bundle,
            np.stack([found[row] for row in rows]),
            Counter(text for row in rows for text in flags[row]),
        )
        for bundle, found, flags in zip(bundles, answers, doubts, strict=True)
    )


def predictions(
    site: Site, named: Mapping[str, NDArray[np.float64]], folds: NDArray[np.int64] | None = None
) -> pd.DataFrame:
    """Return a predictions table, as an evaluation takes it.

    Args:
        site: the scans.
        named: cumulative risks by name, (scans, intervals): at least the intervals of the site's outcomes.
        folds: of each scan; None: the models have seen nobody, so there is one.
    """
    edges = site.data.outcomes.edges
    scans = site.frame[["scan", "patient"]].assign(fold=0 if folds is None else folds)
    tables = [stacking.table(name, scans, risks[:, : len(edges) - 1], edges) for name, risks in named.items()]
    return pd.concat(tables, ignore_index=True)
