"""Findings as a person looks at them on a terminal."""

from rich.console import Console
from rich.table import Table

from dicomnode.analysis.findings import Change, Findings
from dicomnode.report.comparison import interval
from dicomnode.report.numbers import probability, probability_range, share, whole
from dicomnode.report.wording import has_spread
from dicomnode.words.numerals import plural

_SEVERITY = {"info": "note", "warning": "warning", "error": "ERROR"}


def findings_table(console: Console, findings: Findings) -> None:
    """Print which series was chosen, why the others were not, the flags, the numbers and the risk."""
    _print_series(console, findings)
    for flag in findings.flags:
        console.print(f"{_SEVERITY[flag.severity]}: {flag.text} ({flag.code})", highlight=False)
    if findings.lungs is not None:
        _print_numbers(console, findings)
    if findings.change is not None:
        _print_change(console, findings.change)
    if findings.risk is not None:
        _print_risk(console, findings)


def _print_series(console: Console, findings: Findings) -> None:
    table = Table("series", "modality", "slices", "decision", title="Series", title_justify="left")
    if (s := findings.series) is not None:
        table.add_row(_short(s.series_uid), "CT", str(s.slices), f"chosen: {s.why_chosen}")
    for r in findings.rejected:
        table.add_row(
            _short(r.series_uid), r.modality, str(r.slices), "\n".join(f"{x.code}: {x.text}" for x in r.reasons)
        )
    if not table.rows:
        table.add_row("-", "-", "0", "no readable DICOM image found")
    console.print(table)


def _print_numbers(console: Console, findings: Findings) -> None:
    assert findings.lungs is not None
    title = f"Lungs (segmenter {findings.lungs.segmenter}, version {findings.lungs.segmenter_version})"
    table = Table("measure", "both", "right", "left", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    v = findings.lungs.volume_ml
    table.add_row("volume, ml", *map(whole, (v.total, v.right, v.left)))
    rows = (
        ("mean attenuation, HU", "mean_hu", whole),
        ("SD, HU", "sd_hu", whole),
        ("15th percentile, HU", "p15_hu", whole),
        ("HAA (-600 to -250 HU), %", "haa_percent", share),
        ("dense (above -250 HU), %", "dense_percent", share),
        ("LAA-950 (below -950 HU), %", "laa950_percent", share),
    )
    for label, name, written in rows:
        measured = [findings.quantities.get(region) for region in ("lungs", "right", "left")]
        values = [None if q is None else getattr(q, name) for q in measured]
        table.add_row(label, *("-" if value is None else written(value) for value in values))
    console.print(table)
    parts = (
        ("upper, middle, lower third", ("upper_third", "middle_third", "lower_third")),
        ("core, outer 20 mm, outer 20 mm of the lower third", ("core", "rim", "lower_third_rim")),
        ("right lobes (upper, middle, lower)", ("right_upper_lobe", "right_middle_lobe", "right_lower_lobe")),
        ("left lobes (upper, lower)", ("left_upper_lobe", "left_lower_lobe")),
    )
    for label, regions in parts:
        found = [findings.quantities.get(r) for r in regions]
        if any(found):
            shares = ", ".join("-" if q is None else share(q.haa_percent) for q in found)
            console.print(f"HAA, %, {label}: {shares}", highlight=False)


def _print_change(console: Console, change: Change) -> None:
    title = f"Change since study {_short(change.prior_study_uid)}, {interval(change.interval_days)} earlier"
    table = Table("measure", "prior", "now", "change", "per year", title=title, title_justify="left")
    for name, d in change.measures.items():
        per_year = "-" if d.per_year is None else f"{d.per_year:+.2f}"
        table.add_row(name, f"{d.prior:.2f}", f"{d.now:.2f}", f"{d.absolute:+.2f}", per_year)
    console.print(table)
    for flag in change.flags:
        console.print(f"{_SEVERITY[flag.severity]}: {flag.text} ({flag.code})", highlight=False)


def _print_risk(console: Console, findings: Findings) -> None:
    assert findings.risk is not None
    title = f"Predicted risk of death, all causes (bundle {findings.risk.bundle}, {findings.risk.intended_use})"
    spread = has_spread(findings.risk)  # of the models; of one there is none
    table = Table("within", "probability", *(("spread",) if spread else ()), title=title, title_justify="left")
    for h in findings.risk.horizons:
        row = [plural(h.years, "year"), f"{probability(h.probability)} %"]
        table.add_row(*row, *((f"{probability_range(h.lower, h.upper)} %",) if spread else ()))
    console.print(table)
    if findings.risk.intended_use == "synthetic-demo":
        console.print("SYNTHETIC DEMO MODEL: trained on phantoms; these probabilities are meaningless for a patient.")
    console.print("Research use only; check the images first.")


def _short(uid: str) -> str:
    return uid if len(uid) <= 24 else f"…{uid[-22:]}"
