"""Every number of the structured reports with its code, unit and meaning, for those who import them elsewhere."""

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from pydicom.sr.coding import Code

from dicomnode.report import codes


@dataclass(frozen=True)
class Concept:
    """One row of the published table. `derivation` is the code of its modifier, "" where it has none."""

    report: str
    code: str
    scheme: str
    derivation: str
    unit: str
    meaning: str
    unit_meaning: str
    findings: str


def concepts() -> Iterator[Concept]:
    """Yield the numbers in the order of the reports. `findings`: where `findings.json` has the same number."""
    region = "quantities.REGION"
    yield _row("measurements", codes.VOLUME, codes.CUBIC_CENTIMETRE, "lungs.volume_ml, or quantities.LOBE.volume_ml")
    yield _row("measurements", codes.HIGH_ATTENUATION, codes.PERCENT, f"{region}.haa_percent")
    yield _row("measurements", codes.DENSE, codes.PERCENT, f"{region}.dense_percent")
    yield _row("measurements", codes.LOW_ATTENUATION, codes.PERCENT, f"{region}.laa950_percent")
    for derivation, unit, name in (
        (codes.MEAN, codes.HOUNSFIELD, "mean_hu"),
        (codes.STANDARD_DEVIATION, codes.HOUNSFIELD, "sd_hu"),
        (codes.MEDIAN, codes.HOUNSFIELD, "p50_hu"),
        (codes.SKEWNESS, codes.NO_UNITS, "skewness"),
        (codes.KURTOSIS, codes.NO_UNITS, "kurtosis"),
    ):
        yield _row("measurements", codes.ATTENUATION, unit, f"{region}.{name}", derivation)
    for percentile, name in (
        (codes.PERCENTILE_5, "p05_hu"),
        (codes.PERCENTILE_15, "p15_hu"),
        (codes.PERCENTILE_85, "p85_hu"),
        (codes.PERCENTILE_95, "p95_hu"),
    ):
        yield _row("measurements", percentile, codes.HOUNSFIELD, f"{region}.{name}")
    yield _row("measurements", codes.LEFT_OUT, codes.CUBIC_CENTIMETRE, "lungs.left_out_ml")
    for part in codes.REGIONS:
        yield _row(
            "measurements", codes.REGIONAL_HIGH_ATTENUATION[part], codes.PERCENT, f"quantities.{part}.haa_percent"
        )
        yield _row(
            "measurements", codes.REGIONAL_LOW_ATTENUATION[part], codes.PERCENT, f"quantities.{part}.laa950_percent"
        )
        yield _row("measurements", codes.REGIONAL_MEAN[part], codes.HOUNSFIELD, f"quantities.{part}.mean_hu")
    yield _row("measurements", codes.CHANGE_INTERVAL, codes.DAY, "change.interval_days")
    for name, (concept, yearly, unit, unit_a_year) in codes.CHANGE.items():
        yield _row("measurements", concept, unit, f"change.measures[{name}].absolute")
        yield _row("measurements", yearly, unit_a_year, f"change.measures[{name}].per_year")
    for years, triple in codes.MORTALITY.items():
        for code, name in zip(triple, ("probability", "lower", "upper"), strict=True):
            yield _row("risk", code, codes.PERCENT, f"risk.horizons[years={years}].{name} x 100")
    yield _row("risk", codes.POPULATION_PERCENTILE, codes.PERCENT, "population.percentile")


def _row(report: str, concept: Code, unit: Code, findings: str, derivation: Code | None = None) -> Concept:
    modifier = "" if derivation is None else f"{derivation.value} {derivation.scheme_designator}"
    meaning = concept.meaning if derivation is None else f"{concept.meaning}, {derivation.meaning}"
    return Concept(
        report, concept.value, concept.scheme_designator, modifier, unit.value, meaning, unit.meaning, findings
    )


def as_csv() -> str:
    """Return the text of docs/radiologist/concepts.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Concept))
    writer.writerows(astuple(row) for row in concepts())
    return text.getvalue()


def as_page() -> str:
    """Return the text of docs/radiologist/concepts.md."""
    rows = "".join(
        f"| {row.report} | `{row.code}` {row.scheme} | {row.derivation or '-'} | `{row.unit}` | {row.meaning} "
        f"| `{row.findings}` |\n"
        for row in concepts()
    )
    return (
        "# Numbers of the reports, for import\n\n"
        "Every number of the structured reports: its code, UCUM unit, meaning, and its place in `findings.json`.\n"
        "Made by `dicomnode/report/concepts.py`, also as [CSV](concepts.csv); a test compares both with the code, and\n"
        "with the reports.\n\n"
        "- Match code *and* derivation: the modifier (121401, DCM, Derivation) tells the mean from the median.\n"
        "- The region stands in the measurement group: tracking identifier, finding site, laterality.\n"
        "- A change of a percentage is in percentage points, whose unit is `%` too.\n"
        "- Risk: a bundle may declare other years than 1, 3 and 5; the number in the code is that of the years.\n"
        "- Rounded in the reports: ml and HU whole, % with one decimal; `findings.json` has all digits.\n\n"
        "| report | code | derivation | unit | meaning | in `findings.json` |\n|---|---|---|---|---|---|\n"
        f"{rows}"
    )
