"""`reference.json` of a bundle: the distribution of the inputs it was made on (`dicomnode.analysis.risk.reference`).

One half of the patients fits location, spread and correlation; the other half says how far out patients lie of whom
nothing was fitted. Words are counted over all, each patient's without that patient. The halves, and the scan that
stands for a patient, follow from digests of the pseudonyms, so the same run makes the same file.

Nothing in it is a patient's: every quantile has at least `FEWEST` patients beyond it, and a word that fewer have is not
named.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.covariance import LedoitWolf

from dicomnode.analysis.risk import reference
from dicomnode.analysis.risk.reference import LEVELS, ReferenceDistribution, ReferenceNumber, ReferenceWord
from dicomnode.analysis.risk.scan_inputs import NUMBERS, WORDS, Scale, ScanInputs, on_scale, scan_inputs

#: Fewer patients than this are told of by nothing in the file.
FEWEST: Final = 5
#: From so many patients on there is a reference: fewer leave too little to judge the others by.
PATIENTS: Final = 40
#: The share of scans of the same population that may be flagged, and how sure that is over the draw of the patients.
_FLAGGED, _SURE = 0.05, 0.95
_KNOWN = 0.9
_MOST_OTHERS = 8
_DIGITS = 4
_LEVELS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)


def write(folder: Path, cohort: pd.DataFrame, features: pd.DataFrame, scans: pd.DataFrame, used: Sequence[str]) -> bool:
    """Write reference.json into a bundle's folder. Returns False, and writes nothing, where the patients are too few.

    Args:
        folder: the bundle's.
        cohort: of the run.
        features: of the run, a row a scan of the cohort, with a column `scan`.
        scans: of the registry.
        used: names of the features that the tabular models take.
    """
    made = fit(inputs_of(cohort, features, scans), cohort["patient"].to_list(), cohort["scan"].to_list(), used)
    if made is None:
        return False
    (folder / reference.NAME).write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return True


def inputs_of(cohort: pd.DataFrame, features: pd.DataFrame, scans: pd.DataFrame) -> list[ScanInputs]:
    """Return the inputs of each scan of a cohort, as the node would have them."""
    of_scan = features.set_index("scan").reindex(cohort["scan"])
    spacing = scans.set_index("scan")["spacing_z_mm"].reindex(cohort["scan"])
    rows = zip(cohort.to_dict("records"), of_scan.to_dict("records"), spacing.to_numpy(np.float64), strict=True)
    return [
        scan_inputs(
            {str(k): float(v) for k, v in measured.items() if not math.isnan(v)},
            spacing_z_mm=None if math.isnan(step) else float(step),
            slice_thickness_mm=None if math.isnan(row["slice_thickness_mm"]) else float(row["slice_thickness_mm"]),
            manufacturer=str(row["manufacturer"]),
            kernel_family=str(row["kernel_family"]),
            sex=str(row["sex"]),
        )
        for row, measured, step in rows
    ]


def fit(
    inputs: Sequence[ScanInputs], patients: Sequence[str], scans: Sequence[str], used: Sequence[str] = ()
) -> ReferenceDistribution | None:
    """Return the reference distribution of some scans; None where there are fewer than `PATIENTS` patients.

    Args:
        inputs: of each scan.
        patients: whose each is.
        scans: its name.
        used: features that the models take; they stand in where no quantity of the lungs is known, as of tables that
            somebody else has measured, and declared covariates among them count always.
    """
    chosen = _one_a_patient(inputs, patients, scans)
    if len(chosen) < PATIENTS:
        return None
    ordered = [chosen[patient] for patient in sorted(chosen, key=_digest)]
    numbers = _names(ordered, used)
    if not numbers:
        return None
    half = len(ordered) // 2
    fitted, judged = ordered[:half], ordered[half:]
    parts = [_number(name, *NUMBERS.get(name, ("plain", 0.0)), fitted, ordered) for name in numbers]
    counts = {name: Counter(word for one in ordered if (word := one.words.get(name))) for name in WORDS}
    words = [_word(name, counts[name]) for name in WORDS]
    rough = ReferenceDistribution(
        patients=len(ordered),
        numbers=tuple(parts),
        words=tuple(words),
        precision=tuple(map(tuple, np.eye(len(parts)).tolist())),
        distance_unit=1.0,
        extreme_unit=1.0,
        limit=1.0,
        levels=(0.0,),
        scores=(0.0,),
    )
    away = np.array([rough.deviations(one) for one in fitted])
    precision = _precision(away)
    whole = rough.model_copy(update={"precision": precision, **_units(away, precision, rough.stated)})
    scores = np.sort([_without(whole, counts, one).score(one) for one in judged])
    known = [level for level in _LEVELS if level * len(judged) <= len(judged) - FEWEST]
    return ReferenceDistribution.model_validate(
        whole.model_dump()
        | {
            "limit": _up(scores[_rank(len(judged)) - 1]),
            "levels": known,
            "scores": [_up(s) for s in np.quantile(scores, known, method="higher")],
        }
    )


def _rank(count: int) -> int:
    """Return which of `count` scores, from the lowest, is the limit.

    With that many at or below it, more than `_FLAGGED` of the population lies above it with a probability of at most
    1 - `_SURE` (Vovk 2012); of few patients none suffices, and the highest holds on average.
    """
    for rank in range(1, count + 1):
        if binom.cdf(count - rank, count, _FLAGGED) <= 1 - _SURE:
            return rank
    return count


def _digest(name: str) -> str:
    return hashlib.sha256(f"reference {name}".encode()).hexdigest()


def _one_a_patient(
    inputs: Sequence[ScanInputs], patients: Sequence[str], scans: Sequence[str]
) -> dict[str, ScanInputs]:
    found: dict[str, tuple[str, ScanInputs]] = {}
    for one, patient, scan in zip(inputs, patients, scans, strict=True):
        name = _digest(scan)
        if patient not in found or name < found[patient][0]:
            found[patient] = (name, one)
    return {patient: one for patient, (_, one) in found.items()}


def _values(name: str, of: Iterable[ScanInputs]) -> NDArray[np.float64]:
    found = np.array([one.numbers.get(name, math.nan) for one in of], np.float64)
    return found[np.isfinite(found)]


def _names(of: Sequence[ScanInputs], used: Sequence[str]) -> list[str]:
    """Return the numbers that nearly every scan has."""
    others = [name for name in used if name not in NUMBERS and name.startswith("covariates.") and "=" not in name]
    others = [name for name in others if name != "covariates.sex_male"]
    known = [name for name in (*NUMBERS, *others) if _values(name, of).size >= _KNOWN * len(of)]
    if not any(name.startswith("quantities.lungs.") for name in known):
        measured = [n for n in used if n.startswith(("quantities.", "radiomics.")) and n not in known]
        known += [n for n in measured if _values(n, of).size >= _KNOWN * len(of)][:_MOST_OTHERS]
    return known


def _number(
    name: str, scale: Scale, least: float, fitted: Sequence[ScanInputs], every: Sequence[ScanInputs]
) -> ReferenceNumber:
    """Middle and spread by quartiles of one half; the quantiles, which drift is compared with, of all."""
    shown = np.array([on_scale(scale, v) for v in _values(name, fitted)])
    low, middle, high = np.quantile(shown, [0.1, 0.5, 0.9])
    floor = max(least, 0.02 * abs(float(middle)) if not least else 0.0, 1e-6)
    values = _values(name, every)
    share = FEWEST / len(values)
    quantiles = [_rounded(q) for q in np.quantile(values, [min(max(p, share), 1 - share) for p in LEVELS])]
    return ReferenceNumber(
        name=name,
        scale=scale,
        middle=_rounded(middle),
        below=_rounded(max((middle - low) / _NORMAL_90, floor)),
        above=_rounded(max((high - middle) / _NORMAL_90, floor)),
        quantiles=tuple(quantiles),
        at_most=tuple(_at_most(values, q) for q in quantiles),
    )


def _at_most(values: NDArray[np.float64], limit: float) -> float:
    """Return the share of values at or below a limit; of fewer than `FEWEST` on either side it says `FEWEST`."""
    below = int((values <= limit).sum())
    told = below if below in (0, len(values)) else min(max(below, FEWEST), len(values) - FEWEST)
    return round(told / len(values), _DIGITS)


#: Of a standard normal distribution, the 90th percentile.
_NORMAL_90 = 1.2816


def _word(name: str, counts: Counter[str]) -> ReferenceWord:
    total = max(counts.total(), 1)
    shares = {value: round(count / total, 3) for value, count in sorted(counts.items()) if count >= FEWEST}
    return ReferenceWord(name=name, shares=shares, rest=round(max(0.0, 1 - sum(shares.values())), 3))


def _without(
    whole: ReferenceDistribution, counts: Mapping[str, Counter[str]], one: ScanInputs
) -> ReferenceDistribution:
    """Return the reference as it would be without a patient's words: nobody vouches for the own scanner.

    The words are counted over all patients, since of half of them fewer could be named.
    """
    words = tuple(_word(name, of - Counter([one.words.get(name, "")])) for name, of in counts.items())
    return whole.model_copy(update={"words": words})


def _precision(away: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    # One patient far out shall not make room for others: deviations are cut where a normal distribution has next to
    # none.
    shrunk = LedoitWolf(assume_centered=True).fit(np.clip(away, -3.0, 3.0)).precision_
    symmetric = (shrunk + shrunk.T) / 2
    return tuple(tuple(round(float(v), 6) for v in row) for row in symmetric)


def _units(
    away: NDArray[np.float64], precision: tuple[tuple[float, ...], ...], stated: NDArray[np.intp]
) -> dict[str, float]:
    distances = np.sqrt(np.einsum("ij,jk,ik->i", away, np.array(precision), away))
    return {
        "distance_unit": _up(float(np.quantile(distances, 0.95))),
        "extreme_unit": _up(float(np.quantile(np.abs(away[:, stated]).max(axis=1, initial=0.0), 0.95))) or 1.0,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _up(value: float) -> float:
    """Return a score rounded up: a limit that is rounded down would flag the patient that it is of."""
    return math.ceil(float(value) * 1000) / 1000
