"""The predicted risk as a structured report of its own: TID 1500 with one TID 1501 group.

Its own, because PixelMed's validator rejects TID 1411 and TID 1501 side by side in one document.
"""

from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings, Horizon, PopulationDistance, Risk
from dicomnode.report import codes, source, uids
from dicomnode.report.context import MANUFACTURER, RISK, Context
from dicomnode.report.numbers import probability, probability_range
from dicomnode.report.sr import frame
from dicomnode.report.sr.numeric import percentage
from dicomnode.report.wording import has_spread, plain
from dicomnode.words.numerals import plural


def encode(headers: Sequence[Dataset], findings: Findings, context: Context) -> Dataset:
    """Return the risk of one analysis, with both ends of the models' spread at each horizon.

    Where the bundle has a reference distribution: with the share of its patients that lie no further out.

    Raises:
        ValueError: the findings hold no risk.
    """
    risk = findings.risk
    if risk is None:
        raise ValueError("no risk to encode: the findings have none")
    interval = risk.interval or "The model does not define its interval."
    return frame.document(
        RISK,
        headers,
        findings,
        context,
        groups=[frame.doubted(_group(headers, risk, findings.population), (*risk.flags, *findings.flags))],
        evaluations=[
            *frame.preamble(findings),
            *(frame.text(codes.RISK_IN_WORDS, in_words(horizon, has_spread(risk))) for horizon in risk.horizons),
            frame.text(codes.INTERVAL, interval),
            *frame.series_used(findings),
        ],
    )


def _group(
    headers: Sequence[Dataset], risk: Risk, population: PopulationDistance | None
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    first = headers[0]
    middle = source.placeholder(headers[len(headers) // 2])
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            identifier="Mortality risk", uid=uids.tracking(source.patient_key(first), "mortality risk")
        ),
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.LUNG, laterality=codes.BILATERAL)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=plain(risk.bundle),
            version=plain(risk.version) or "not stated",
            manufacturer=MANUFACTURER,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            parameters=[f"bundle sha256={risk.bundle_sha256}", f"intended use={risk.intended_use}"],
        ),
        measurements=[
            *(item for horizon in risk.horizons for item in _measurements(horizon)),
            *([] if population is None else [percentage(codes.POPULATION_PERCENTILE, population.percentile)]),
        ],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(codes.SUMMARY_OF_ANALYSES, codes.SUCCEEDED)],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(middle)],
    )


def _measurements(horizon: Horizon) -> list[hd.sr.Measurement]:
    values = (horizon.probability, horizon.lower, horizon.upper)
    return [percentage(code, 100.0 * value) for code, value in zip(codes.mortality(horizon.years), values, strict=True)]


def in_words(horizon: Horizon, spread: bool) -> str:
    """Return a horizon's risk in one line, with the models' spread where there is one."""
    within = f"Death from any cause within {plural(horizon.years, 'year')}"
    told = f"{within}: {probability(horizon.probability)} %"
    return f"{told}, model spread {probability_range(horizon.lower, horizon.upper)} %" if spread else told
