"""Findings of the sample: all that an analysis can state, the least of it, other numbers, and a refusal."""

from dataclasses import replace

from dicomnode.analysis.findings import (
    Change,
    ChosenSeries,
    Conditions,
    Delta,
    Findings,
    Flag,
    Horizon,
    Lungs,
    PopulationDistance,
    Quantities,
    Radiomics,
    Reason,
    RejectedSeries,
    Risk,
    TrendPoint,
    VolumeMl,
)
from dicomnode.report import codes
from dicomnode.report.structures import LOBES_OF_LUNG

_SPACING_MM = (4.0, 2.0, 2.0)
_VERSION = "0.0.1"
_DIGEST = "34" * 32


def least() -> Findings:
    """Return an analysed study of which nothing is stated that may lack; it has a risk, for the risk report."""
    return Findings(
        status="analysed",
        series=ChosenSeries("1.2.3", "1.2.3.4", 4, _SPACING_MM, "", "the only complete axial series"),
        lungs=Lungs("classical", "3", VolumeMl(4000.0, 2000.0, 2000.0), "morphology"),
        quantities={name: _quantities(0.0, None) for name in ("lungs", "right", "left")},
        risk=Risk("sample", "ab" * 32, "research", (Horizon(1, 0.1, 0.05, 0.2),)),
        software_version=_VERSION,
        input_digest="12" * 32,
        algorithm_digest=_DIGEST,
    )


def complete(*, parts: bool = True) -> Findings:
    """Return an analysed study with lobes and regions (`parts`), prior scans, a change, doubts and a risk."""
    regions = ("lungs", "right", "left", *((*LOBES_OF_LUNG, *codes.REGIONS) if parts else ()))
    return replace(
        least(),
        series=ChosenSeries("1.2.3", "1.2.3.4", 4, _SPACING_MM, "LUNG", "the thinnest complete axial series"),
        flags=(Flag("thick", "warning", "slices are 4.0 mm apart"), Flag("contrast", "info", "no contrast agent")),
        lungs=Lungs(
            "classical", "3", VolumeMl(4000.0, 2000.0, 2000.0), "morphology", left_out_ml=VolumeMl(30.0, 10.0, 20.0)
        ),
        quantities={name: _quantities(float(k), 900.0) for k, name in enumerate(regions)},
        radiomics=Radiomics({}, {"lungs": {"original_firstorder_Mean": -800.0}}),
        risk=Risk("sample", "ab" * 32, "research", _horizons(0.0), "1.0.0", "Spread of 5 models", disease="SSc-ILD",
                  recalibrated_to="SITE"),
        change=Change(
            "1.2.1",
            "1.2.1.1",
            "20250101",
            365.25,
            {name: Delta(10.0, 12.5, 2.5, 25.0, 2.5) for name in codes.CHANGE},
            (Flag("change-scanner", "warning", "Different scanner."),),
            "56" * 32,
            _DIGEST,
        ),
        trend=(_before("1.2.0"), _before("1.2.1")),
        conditions=Conditions(20.0, -1000.0),
        population=PopulationDistance(0.4, 1.1, 42.0, outside=False, patients=300),
    )  # fmt: skip


def other(found: Findings) -> Findings:
    """Return what another analysis would have found: other numbers, another segmenter, bundle and prior scan."""
    assert found.series is not None
    return replace(
        found,
        series=replace(found.series, kernel="SOFT", why_chosen="the only axial series", spacing_mm=(5.0, 2.0, 2.0)),
        flags=(Flag("noise", "error", "too much noise"),),
        lungs=Lungs("lungmask", "4", VolumeMl(3000.0, 1400.0, 1600.0), "network"),
        quantities={name: _quantities(9.0 + k, 800.0) for k, name in enumerate(found.quantities)},
        risk=Risk("other", "cd" * 32, "synthetic-demo", _horizons(0.2), "2.0.0", "Spread of 3 models"),
        trend=(_before("1.2.2"), _before("1.2.1")),
        population=PopulationDistance(1.4, 1.1, 99.0, outside=True, named=("age, years",), patients=300),
        input_digest="78" * 32,
        algorithm_digest="9a" * 32,
    )


def refused_at_least() -> Findings:
    """Return a refused study of which nothing else is stated."""
    return replace(refused(), rejected=(), flags=())


def refused(which: int = 0) -> Findings:
    """Return a study that was refused, for one reason or another."""
    reason = (Reason("no-modality", "the images state no modality"), Reason("few-slices", "it has 3 slices"))[which]
    return Findings(
        status="refused",
        rejected=tuple(RejectedSeries(f"1.2.3.{n}", "CT", 2, (reason,)) for n in (8, 9)),
        flags=tuple(Flag("thick", "warning", f"doubt {n}: {reason.text}") for n in (1, 2)),
        software_version=_VERSION,
        algorithm_digest=_DIGEST if which == 0 else "9a" * 32,
    )


def _before(study_uid: str) -> TrendPoint:
    return TrendPoint(
        study_uid, f"{study_uid}.1", "20250101", 365.25, 4100.0, 9.0, -820.0, _horizons(0.0), "ab" * 32,
        version=("56" * 32, _DIGEST, _VERSION, ""),
    )  # fmt: skip


def _quantities(shift: float, volume_ml: float | None) -> Quantities:
    return Quantities(
        mean_hu=-800.0 + shift,
        sd_hu=150.0 + shift,
        skewness=2.0 + shift / 10,
        kurtosis=5.0 + shift / 10,
        p05_hu=-960.0 + shift,
        p15_hu=-930.0 + shift,
        p50_hu=-850.0 + shift,
        p85_hu=-700.0 + shift,
        p95_hu=-400.0 + shift,
        haa_percent=12.5 + shift / 10,
        laa950_percent=3.25 + shift / 10,
        volume_ml=None if volume_ml is None else volume_ml + shift,
        dense_percent=None if volume_ml is None else 1.5 + shift / 10,
    )


def _horizons(shift: float) -> tuple[Horizon, ...]:
    return tuple(
        Horizon(years, 0.1 * years + shift, 0.05 * years + shift, 0.15 * years + shift) for years in codes.MORTALITY
    )
