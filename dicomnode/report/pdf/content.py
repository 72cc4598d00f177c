"""What the PDF says: findings as headings, sentences and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings, Risk
from dicomnode.analysis.measures.change import studied_at
from dicomnode.report import codes, letters
from dicomnode.report.comparison import comparisons, day, sentence
from dicomnode.report.context import Context
from dicomnode.report.dense import dense_ml, left_out_ml, volume_ml
from dicomnode.report.explanation import MOST_ARMS, hazard, heading, heat_lines, preface, rows, unshown
from dicomnode.report.numbers import probability, probability_range, share, signed, whole
from dicomnode.report.published import NO_REFERENCE, REFERENCE_RANGES, REPEATABILITY_SOURCE
from dicomnode.report.refused import reasons
from dicomnode.report.structures import LOBES_OF_LUNG, LUNGS
from dicomnode.report.wording import DEMO, NO_DOUBTS, RESEARCH_BAND, flag_line, has_spread, is_demo, ranked, warnings
from dicomnode.words.numerals import plural


@dataclass(frozen=True)
class Table:
    """A head and rows of equal length; `words`: its columns hold words, which stand on the left."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it. `picture` is SVG, `alt` its words; `size` in points."""

    heading: str
    lines: Sequence[str] = ()
    table: Table | None = None
    notes: Sequence[str] = ()
    picture: str | None = None
    alt: str = ""
    size: float = 8.0
    new_page: bool = False


@dataclass(frozen=True)
class PdfContent:
    """The whole report. `who`: names and values of patient and study."""

    title: str
    author: str
    bands: Sequence[str]
    footer: str
    who: Sequence[tuple[str, str]]
    flags: Sequence[dict[str, str]]
    without_flags: str
    parts: Sequence[Part] = field(default_factory=tuple)


@dataclass(frozen=True)
class Pictures:
    """SVG of the slices and of the trend; "" for none."""

    slices: str = ""
    trend: str = ""
    looked: str = ""


TITLE: Final = "Chest CT: lung measurements and mortality risk"


def content(findings: Findings, context: Context, header: Dataset | None, pictures: Pictures) -> PdfContent:
    """Return what the report says.

    Args:
        findings: of the study, also of a refused one.
        context: the result's circumstances.
        header: of an image of the study, for patient and order; None names nobody.
        pictures: of the same study.
    """
    who = _who(findings, context, header)
    parts = _refusal(findings) if findings.status == "refused" else _analysis(findings, pictures)
    return PdfContent(
        title=TITLE if findings.status == "analysed" else "Chest CT: not analysed",
        author="dicomnode",
        bands=(RESEARCH_BAND, *((DEMO,) if is_demo(findings) else ())),
        footer=_footer(who),
        who=who,
        flags=[{"severity": f.severity, "text": letters.shown(f.text)} for f in ranked(findings.flags)],
        without_flags=NO_DOUBTS if findings.status == "analysed" else "",
        parts=[*parts, _about(findings)],
    )


#: Letters of a name on each page's foot; the first page has all of it.
_MOST_LETTERS: Final = 70


def _footer(who: Sequence[tuple[str, str]]) -> str:
    values = [value for name, value in who if name in ("Patient", "Patient ID", "Study date") and value]
    return ", ".join(v if len(v) <= _MOST_LETTERS else f"{v[:_MOST_LETTERS].rstrip()}…" for v in values)


def _who(findings: Findings, context: Context, header: Dataset | None) -> list[tuple[str, str]]:
    made = f"{context.created:%Y-%m-%d %H:%M %Z}".strip()
    moment = None if findings.series is None else studied_at(findings.series)
    date = "" if moment is None else moment.date().isoformat()
    if header is None:
        return [("Study date", date or "-"), ("Report made", made)]

    def of(keyword: str) -> str:
        return letters.shown(letters.words(header, keyword))

    return [
        ("Patient", letters.person(header) or "-"),
        ("Patient ID", of("PatientID") or "-"),
        ("Born", day(of("PatientBirthDate")) or "-"),
        ("Sex", of("PatientSex") or "-"),
        ("Study date", date or day(of("StudyDate")) or "-"),
        ("Accession number", of("AccessionNumber") or "-"),
        ("Study", of("StudyDescription") or "-"),
        ("Report made", made),
    ]


def _analysis(findings: Findings, pictures: Pictures) -> Iterator[Part]:
    """Yield what a reader needs first, then, on the second page, all numbers."""
    yield _main(findings)
    yield _risk(findings.risk)
    if pictures.slices:
        yield Part(
            "Images",
            picture=pictures.slices,
            alt="Coronal and two axial CT slices with the outlines of the lungs; right lung solid, left lung dashed.",
            notes=(
                "Outlines: automatic segmentation; right lung solid (orange), left lung dashed (blue). The patient's "
                "right is on the left. Window -600/1500 HU.",
            ),
        )
    second = [*_weighed(findings.risk, pictures), *_compared(findings, pictures), _regions(findings)]
    yield replace(second[0], new_page=True)
    yield from second[1:]
    yield Part(
        "Reference ranges, as published",
        table=Table(
            ("Measure", "Values", "Population", "Source"),
            [(r.measure, r.values, r.who, r.source) for r in REFERENCE_RANGES],
            words=True,
        ),
        notes=(f"Of other populations, scanners and segmentations: for orientation only. {NO_REFERENCE}",),
        size=6.8,
    )


def _sites(findings: Findings) -> dict[str, str]:
    """Words for each region in the quantities, by its name; of one lung alone both and that lung are the same."""
    lungs = [name for name in LUNGS if name in findings.quantities]
    whole_lungs = {"lungs": "Both lungs"} if len(lungs) > 1 else {}
    sites = {**whole_lungs, **{name: LUNGS[name].name.capitalize() for name in lungs}}
    if not lungs and "lungs" in findings.quantities:
        sites["lungs"] = "Lungs"
    sites |= {name: s.name.capitalize() for name, s in LOBES_OF_LUNG.items() if name in findings.quantities}
    return sites | {name: w[:1].upper() + w[1:] for name, w in codes.REGIONS.items() if name in findings.quantities}


#: Heading, attribute of `Quantities`, how it is written.
_COLUMNS: Final = (
    ("HAA %", "haa_percent", share),
    ("Dense %", "dense_percent", share),
    ("LAA %", "laa950_percent", share),
    ("Mean", "mean_hu", whole),
    ("SD", "sd_hu", whole),
    ("P5", "p05_hu", whole),
    ("P15", "p15_hu", whole),
    ("Median", "p50_hu", whole),
    ("P85", "p85_hu", whole),
    ("P95", "p95_hu", whole),
    ("Skewness", "skewness", "{:.2f}".format),
    ("Kurtosis", "kurtosis", "{:.2f}".format),
)


def _rows(findings: Findings, sites: dict[str, str], attributes: Sequence[str]) -> Table:
    # A measure that an older result does not have has no column.
    columns = [
        c
        for c in _COLUMNS
        if c[1] in attributes and any(getattr(findings.quantities[s], c[1], None) is not None for s in sites)
    ]
    rows = []
    for region, words in sites.items():
        q = findings.quantities[region]
        values = (getattr(q, attribute, None) for _, attribute, _ in columns)
        written = ("-" if v is None else form(v) for v, (_, _, form) in zip(values, columns, strict=True))
        volume = volume_ml(findings, region)
        rows.append((words, "-" if volume is None else whole(volume), *written))
    return Table(("Region", "Volume ml", *(name for name, _, _ in columns)), rows)


def _main(findings: Findings) -> Part:
    sites = {k: v for k, v in _sites(findings).items() if k in ("lungs", *LUNGS)}
    lines = [] if findings.change is None else [letters.shown(sentence(findings.change))]
    return Part(
        "Lungs",
        lines,
        _rows(findings, sites, ("haa_percent", "dense_percent", "laa950_percent", "mean_hu")) if sites else None,
        notes=(
            "HAA: share of voxels from -600 to -250 HU. Dense: above -250 HU. LAA: below -950 HU. Mean in HU. All "
            "inside the outlines.",
            *_dense(findings),
        ),
    )


def _dense(findings: Findings) -> list[str]:
    """Return the volumes of dense tissue inside the outlines and of what they leave out, where they were measured."""
    dense, left_out = dense_ml(findings, "lungs"), left_out_ml(findings, "lungs")
    told = []
    if dense is not None:
        told.append(f"Dense tissue (above -250 HU) inside the outlines: {whole(dense)} ml.")
    if left_out is not None:
        told.append(f"Left out of the outlines, between aerated lung and chest wall: at least {whole(left_out)} ml.")
    return told


def _regions(findings: Findings) -> Part:
    sites = _sites(findings)
    return Part(
        "All regions",
        table=_rows(findings, sites, [attribute for _, attribute, _ in _COLUMNS]) if sites else None,
        notes=(
            "Thirds by volume from apex to base; rim: the outer 20 mm. Mean to P95 in HU; P5 to P95: percentiles of "
            "the attenuation, whose distribution skewness and kurtosis describe. "
            "Vessels are part of the lung as far as the outlines hold them.",
        ),
        size=6.4,
    )


def _risk(risk: Risk | None) -> Part:
    heading = "Predicted risk of death from any cause"
    if risk is None:
        return Part(heading, ["No risk was predicted for this study."])
    spread = has_spread(risk)
    rows = [
        (
            f"within {plural(h.years, 'year')}",
            f"{probability(h.probability)} %",
            *((f"{probability_range(h.lower, h.upper)} %",) if spread else ()),
        )
        for h in sorted(risk.horizons, key=lambda h: h.years)
    ]
    head = ("Death", "Probability", *(("Model spread",) if spread else ()))
    return Part(heading, table=Table(head, rows), notes=[letters.shown(risk.interval)] if risk.interval else ())


def _weighed(risk: Risk | None, pictures: Pictures) -> Iterator[Part]:
    """Yield how the model weighs the scan, where the findings tell it."""
    if risk is None or risk.explanation is None:
        return
    told: list[tuple[str, str, str, str]] = []
    notes = [letters.shown(words) for words in (*preface(risk), *unshown(risk.explanation))]
    for arm in [arm for arm in risk.explanation.arms if arm.weight > 0][:MOST_ARMS]:
        name = letters.shown(arm.arm)
        told += [(name, letters.shown(one), letters.shown(value), signed(added, 2)) for one, value, added in rows(arm)]
        said = (arm.not_explained,) if arm.heat is None else heat_lines(arm.heat)
        notes.append(letters.shown(" ".join(filter(None, (f"{heading(arm)}.", hazard(arm), *said)))))
    yield Part(
        f"How the model weighs this scan (risk within {plural(risk.explanation.years, 'year')})",
        table=Table(("Arm", "Input", "Value", "Adds"), told, words=True) if told else None,
        notes=notes,
        picture=pictures.looked or None,
        alt="Axial CT slices that add most to the networks' risk; violet where they do.",
        size=7,
    )


def _compared(findings: Findings, pictures: Pictures) -> Iterator[Part]:
    change = findings.change
    if change is not None:
        rows = [(c.measure, c.levels, c.change, c.rate or "-", c.repeatability) for c in comparisons(change)]
        yield Part(
            f"Change since {day(change.prior_study_date)}",
            [letters.shown(flag_line(flag)) for flag in ranked(change.flags)],
            Table(("Measure", "Prior \N{RIGHTWARDS ARROW} now", "Change", "Rate", "Repeatability"), rows, words=True),
            (REPEATABILITY_SOURCE,),
            size=7,
        )
    if findings.trend:
        yield Part(
            f"Over time: {len(findings.trend) + 1} scans",
            table=_trend(findings),
            notes=("* not fully comparable with this scan (kernel, thickness, scanner, inspiration or method).",)
            if any(point.doubts for point in findings.trend)
            else (),
            picture=pictures.trend or None,
            alt="Lung volume, high attenuation and mean attenuation over time; the numbers stand in the table.",
            size=7,
        )


def _trend(findings: Findings) -> Table:
    assert findings.lungs is not None
    risk = findings.risk
    years = [] if risk is None else [h.years for h in risk.horizons]
    rows = []
    for point in findings.trend:
        same = risk is not None and point.bundle_sha256 == risk.bundle_sha256
        judged = {h.years: probability(h.probability) for h in point.horizons} if same else {}
        rows.append(
            (
                day(point.study_date) + ("*" if point.doubts else ""),
                whole(point.volume_ml),
                "-" if point.haa_percent is None else share(point.haa_percent),
                "-" if point.mean_hu is None else whole(point.mean_hu),
                *(judged.get(y, "-") for y in years),
            )
        )
    now = findings.quantities.get("lungs")
    moment = None if findings.series is None else studied_at(findings.series)
    rows.append(
        (
            "this scan" if moment is None else f"{moment.date().isoformat()} (this scan)",
            whole(findings.lungs.volume_ml.total),
            "-" if now is None else share(now.haa_percent),
            "-" if now is None else whole(now.mean_hu),
            *(() if risk is None else (probability(h.probability) for h in risk.horizons)),
        )
    )
    return Table(("Scan", "Volume ml", "HAA %", "Mean HU", *(f"Risk {y} y %" for y in years)), rows)


def _refusal(findings: Findings) -> Iterator[Part]:
    yield Part("Why this study was not analysed", [letters.shown(line) for line in reasons(findings)])


def _about(findings: Findings) -> Part:
    """Return what made the numbers, and the limits of their use."""
    lines = [*warnings(findings)]
    if findings.series is not None:
        s = findings.series
        z, y, x = s.spacing_mm
        scanner = " ".join(w for w in (s.manufacturer, s.manufacturer_model) if w) or "not stated"
        lines.append(
            f"Series {s.series_uid}: {plural(s.slices, 'slice')}, voxel {x:.2f} x {y:.2f} x {z:.2f} "
            f"mm (x, y, z), kernel "
            f"{s.kernel or 'not stated'}, scanner {scanner}. Chosen because: {s.why_chosen}"
        )
    if findings.lungs is not None:
        lines.append(f"Segmentation: {findings.lungs.segmenter} {findings.lungs.segmenter_version}.")
    if findings.risk is not None:
        r = findings.risk
        lines.append(
            f"Risk model: bundle {r.bundle} {r.version}, intended use {r.intended_use}, sha256 {r.bundle_sha256}."
        )
    lines.append(f"dicomnode {findings.software_version}, algorithm digest {findings.algorithm_digest[:16]}.")
    return Part("Method and limits", notes=[letters.shown(line) for line in lines])
