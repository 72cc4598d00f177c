"""From the findings of a scan to the question that a bundle is asked: the served one, or one that runs beside it."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pydicom import Dataset

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Findings, PopulationDistance, Risk
from dicomnode.analysis.measures.change import DAYS_A_YEAR, studied_at
from dicomnode.analysis.risk.covariates import encoded
from dicomnode.analysis.risk.queries import PriorScan
from dicomnode.analysis.risk.scan_inputs import scan_inputs
from dicomnode.analysis.risk.tabular import features_of
from dicomnode.analysis.series.headers import string
from dicomnode.errors import RefusedError

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle  # torch takes seconds to import: who has a bundle has it already

#: Ages above count as this one: 45 CFR 164.514(b)(2)(i)(C) has them among the identifiers, so no registry keeps them.
_OLDEST_YEARS: Final = 90.0
_UNITS_A_YEAR: Final = {"D": DAYS_A_YEAR, "W": DAYS_A_YEAR / 7, "M": 12.0, "Y": 1.0}


def predict(
    bundle: "Bundle",
    findings: Findings,
    header: Dataset,
    volume: Volume,
    labels: Labels,
    before: Findings | None,
    given: Mapping[str, float | str] | None = None,
    *,
    explained: bool = False,
) -> Risk:
    """Return what a bundle predicts for an analysed scan.

    Args:
        bundle: the bundle.
        findings: of the scan, with measurements and change, risk or not.
        header: of one of its images: age and sex, where the bundle takes them.
        volume: of the scan, HU.
        labels: of the scan, (z, y, x), 0 background, 1 right, 2 left.
        before: findings of the patient's latest prior scan (`change.latest_before`).
        given: covariates of the patient by name, as the bundle declares them; they go before the header's.
        explained: whether the risk tells how the bundle weighs the scan.

    Raises:
        RefusedError: no-lungs; features-missing; covariate-missing; covariate-out-of-range.
    """
    assert findings.series is not None
    series = findings.series
    scanner = {"manufacturer": series.manufacturer, "model": series.manufacturer_model}
    features = _features(bundle, findings, header, given)
    scanner |= {"kernel_family": series.kernel_family}
    return bundle.predict(volume, labels, features, _prior(findings, before), scanner, explained=explained)


def _features(
    bundle: "Bundle", findings: Findings, header: Dataset, given: Mapping[str, float | str] | None
) -> dict[str, float]:
    features = features_of(findings) | covariates(findings, header)
    return features | encoded(bundle.manifest.covariates, given) if given else features


def population_distance(
    bundle: "Bundle", findings: Findings, header: Dataset, given: Mapping[str, float | str] | None = None
) -> PopulationDistance | None:
    """Return where an analysed scan lies among those that a bundle was made on.

    Args:
        bundle: the bundle.
        findings: of the scan, with measurements and change.
        header: of one of its images.
        given: covariates of the patient, as in `predict`.

    Returns:
        None where the bundle has no reference distribution, or too little of the scan is known.
    """
    series = findings.series
    if bundle.reference is None or series is None:
        return None
    try:
        features = _features(bundle, findings, header, given)
    except RefusedError:  # a covariate out of range: `predict` says so
        features = _features(bundle, findings, header, None)
    inputs = scan_inputs(
        features,
        spacing_z_mm=series.spacing_mm[0],
        slice_thickness_mm=series.slice_thickness_mm,
        manufacturer=series.manufacturer,
        kernel_family=series.kernel_family,
        sex=string(header, "PatientSex").strip().upper(),
    )
    return bundle.reference.distance(inputs)


def covariates(findings: Findings, header: Dataset) -> dict[str, float]:
    """`covariates.age_years` and `covariates.sex_male` (1 male, 0 female), as far as the header tells them."""
    found: dict[str, float] = {}
    age = age_years(findings, header)
    if age is not None:
        found["covariates.age_years"] = age
    if (sex := string(header, "PatientSex").strip().upper()) in ("F", "M"):
        found["covariates.sex_male"] = float(sex == "M")
    return found


def age_years(findings: Findings, header: Dataset) -> float | None:
    """Patient's Age (PS3.5 6.2, VR AS), else from birth and study dates; at most 90. None: the header has neither."""
    if stated := re.fullmatch(r"(\d{3})([DWMY])", string(header, "PatientAge").strip()):
        return min(_OLDEST_YEARS, round(int(stated[1]) / _UNITS_A_YEAR[stated[2]], 1))
    studied = None if findings.series is None else studied_at(findings.series)
    try:
        born = datetime.strptime(string(header, "PatientBirthDate").strip(), "%Y%m%d")
    except ValueError:
        return None
    if studied is None or studied < born:
        return None
    return min(_OLDEST_YEARS, round((studied - born).days / DAYS_A_YEAR, 1))


def _prior(findings: Findings, before: Findings | None) -> PriorScan | None:
    if before is None or before.risk is None or findings.change is None:
        return None
    return PriorScan(findings.change.interval_days / DAYS_A_YEAR, before.risk.bundle_sha256, before.risk.scan_codes)
