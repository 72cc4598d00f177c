"""The report of a run: one page of HTML that needs nothing beside it, the same as Markdown, and JSON for scripts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from training import figures, report_facts
from training.checklists import Item, claim, interval, tripod_ai
from training.evaluation import ArmResult, Estimate
from training.misjudged import BEGIN, END, HORIZON_YEARS
from training.report_facts import Facts

FORMAT = 1
_NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Published:
    """Figures of the study that this project carries into practice, on its own patients: context, no comparison."""

    model: str
    auc: tuple[str, ...]
    points: tuple[float, ...] = ()


#: Peltekian et al. 2025, arXiv 2509.23530. Of the radiomics only the range over the horizons is at hand.
STUDY = (
    Published("study: PyRadiomics (range over horizons)", ("0.682 to 0.723",) * 3),
    Published("study: best network", ("0.769", "0.801", "0.709"), (0.769, 0.801, 0.709)),
)


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a table of Markdown."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


@dataclass(frozen=True)
class Content:
    """What the report's three forms share."""

    title: str
    banner: str
    summary: tuple[str, ...]
    tables: dict[str, Table]
    card: tuple[tuple[str, str], ...]
    checklists: dict[str, tuple[Item, ...]]


def write(folder: Path) -> Path:
    """Write `report.html`, `report.md` and `report.json` into a run folder, from what it holds.

    Returns:
        The path of the HTML.

    Raises:
        UsageError: the folder holds no evaluation.
    """
    facts = report_facts.read(folder)
    content = _content(facts)
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    html = environment.get_template("report.html.j2").render(facts=facts, content=content, plots=_plots(facts))
    markdown = environment.get_template("report.md.j2").render(facts=facts, content=content, begin=BEGIN, end=END)
    _write(folder / "report.md", markdown)
    _write(folder / "report.json", _json(facts, content))
    _write(folder / "report.html", html)
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _json(facts: Facts, content: Content) -> str:
    evaluation = json.loads(facts.evaluation.to_json())
    stated = {
        "format": FORMAT,
        "run": facts.name,
        "synthetic": facts.synthetic,
        "evaluation": evaluation,
        "flow": [asdict(step) for step in facts.flow],
        "characteristics": [asdict(c) for c in facts.characteristics],
        "warnings": list(facts.warnings),
        "published": [asdict(p) for p in STUDY],
        "model_card": dict(content.card),
        "checklists": {name: [asdict(i) for i in items] for name, items in content.checklists.items()},
        "software": facts.run.get("software"),
        "code": facts.run.get("code"),
        "sha256": facts.run.get("fixed", {}).get("sha256"),
    }
    return json.dumps(stated, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plots(facts: Facts) -> dict[str, Markup]:
    evaluation = facts.evaluation
    primary = evaluation.arm(evaluation.primary)
    drawn = {
        "auc": figures.auc_by_horizon(evaluation, [(p.model, p.points) for p in STUDY if p.points]),
        "roc": figures.roc(evaluation),
        "calibration": figures.calibration(primary),
        "net_benefit": figures.net_benefit(primary),
        "risk_groups": figures.risk_groups(primary),
    }
    # SVG that we drew ourselves: every label in it was escaped by matplotlib.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _content(facts: Facts) -> Content:
    evaluation = facts.evaluation
    primary = evaluation.arm(evaluation.primary)
    years = [h.years for h in evaluation.horizons]
    tables = {
        "auc": _auc_table(facts),
        "discrimination": _metric_table(facts, ("auc_one_scan", "auc_adjusted", "minus_oracle", "of_oracle")),
        "calibration": _calibration_table(facts),
        "threshold": _metric_table(facts, ("sensitivity", "specificity", "net_benefit")),
        "horizons": _horizon_table(facts),
        "characteristics": Table(("", ""), tuple((c.name, c.value) for c in facts.characteristics)),
        "subgroups": _subgroup_table(primary, years),
        "misjudged": _misjudged_table(facts),
    }
    return Content(
        title=f"Evaluation of the run {facts.name}",
        banner=_banner(facts),
        summary=_summary(facts, primary),
        tables=tables,
        card=_card(facts),
        checklists={"TRIPOD+AI": tripod_ai(facts), "CLAIM 2024": claim(facts)},
    )


def _banner(facts: Facts) -> str:
    if facts.synthetic:
        return "Synthetic registry: phantoms with a known truth. The numbers mean nothing for a patient."
    return "Research use only. No medical device; not for diagnosis or treatment. No external evaluation."


def _summary(facts: Facts, primary: ArmResult) -> tuple[str, ...]:
    e = facts.evaluation
    lines = [
        f"{e.scans} scans of {e.patients} patients, {e.deaths} of whom died; median follow-up "
        f"{e.median_follow_up_years:.1f} years after a scan. Every scan was judged by models that have not seen its "
        "patient."
    ]
    for h in primary.horizons:
        oracle = f", {_text(h.of_oracle)} of the oracle's" if h.of_oracle else ""
        lines.append(f"{primary.arm}, {h.years} y: AUC {_text(h.auc)}{oracle}; slope {_text(h.calibration_slope)}")
    return tuple(lines)


def _text(estimate: Estimate | None) -> str:
    return _NOT_MEASURED if estimate is None or estimate.value is None else interval(estimate)


def _auc_table(facts: Facts) -> Table:
    """Laid out like the study's: each model by horizon, and the study's own figures below."""
    e = facts.evaluation
    rows = [(a.arm, *(_text(h.auc) for h in a.horizons), _text(a.uno_c)) for a in e.arms]
    if e.oracle:
        rows.append(("oracle (the true risk)", *(_text(o.auc) for o in e.oracle), ""))
    rows += [(p.model, *p.auc, "") for p in STUDY]
    return Table(("AUC", *(f"{h.years} y" for h in e.horizons), "Uno's C, 5 y"), tuple(rows))


_NAMES = {
    "auc_one_scan": "AUC, one scan a patient",
    "auc_adjusted": "AUC, adjusted censoring",
    "minus_oracle": "AUC less the oracle's",
    "of_oracle": "AUC over the oracle's",
    "brier": "Brier score",
    "scaled_brier": "scaled Brier score",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "net_benefit": "net benefit",
}


def _metric_table(facts: Facts, metrics: Sequence[str]) -> Table:
    """Rows by arm (named in its first) and metric, columns by horizon; a metric that an arm lacks is left out."""
    rows: list[tuple[str, ...]] = []
    for arm in facts.evaluation.arms:
        for metric in metrics:
            estimates: list[Estimate | None] = [getattr(h, metric) for h in arm.horizons]
            if any(e is not None for e in estimates):
                name = "" if arm.arm in {row[0] for row in rows} else arm.arm
                rows.append((name, _NAMES[metric], *(_text(e) for e in estimates)))
    return Table(("arm", "metric", *(f"{h.years} y" for h in facts.evaluation.horizons)), tuple(rows))


def _calibration_table(facts: Facts) -> Table:
    table = _metric_table(facts, ("brier", "scaled_brier", "calibration_slope", "calibration_intercept"))
    slopes = [_text(o.calibration_slope) for o in facts.evaluation.oracle]
    intercepts = [_text(o.calibration_intercept) for o in facts.evaluation.oracle]
    if not slopes:
        return table
    oracle = (("oracle (the true risk)", _NAMES["calibration_slope"], *slopes),)
    return Table(table.head, (*table.rows, *oracle, ("", _NAMES["calibration_intercept"], *intercepts)))


def _horizon_table(facts: Facts) -> Table:
    e = facts.evaluation
    primary = e.arm(e.primary)
    rows = (
        (
            "scans followed by a death",
            *(f"{h.deaths} of {h.patients_died} patients ({100 * h.deaths / e.scans:.1f} %)" for h in e.horizons),
        ),
        ("scans censored before", *(f"{h.censored} ({100 * h.censored / e.scans:.1f} %)" for h in e.horizons)),
        ("observed risk (Kaplan-Meier)", *(_text(h.observed_risk) for h in e.horizons)),
        (f"mean predicted risk ({primary.arm})", *(f"{h.mean_risk:.3f}" for h in primary.horizons)),
    )
    return Table(("", *(f"{h.years} y" for h in e.horizons)), rows)


def _subgroup_table(arm: ArmResult, years: Sequence[int]) -> Table:
    named = dict.fromkeys((s.by, s.value) for s in arm.subgroups)
    rows = []
    for by, value in named:
        of = {s.years: s for s in arm.subgroups if (s.by, s.value) == (by, value)}
        first = of[years[0]]
        deaths = " / ".join(f"{of[y].deaths} ({of[y].patients_died})" for y in years)
        middle = of[years[len(years) // 2]]
        risks = f"{middle.mean_risk:.3f} / {_text(middle.observed_risk)}"
        rows.append((f"{by}: {value}", str(first.scans), deaths, *(_text(of[y].auc) for y in years), risks))
    return Table(
        (
            arm.arm,
            "scans",
            "scans with a death (patients), by horizon",
            *(f"AUC, {y} y" for y in years),
            f"predicted / observed risk, {years[len(years) // 2]} y",
        ),
        tuple(rows),
    )


def _misjudged_table(facts: Facts) -> Table:
    rows = [
        (
            f"died within {HORIZON_YEARS} y" if one.died else f"lived beyond {HORIZON_YEARS} y",
            one.scan,
            f"{one.risk:.3f}",
            f"{one.time_years:.2f}",
        )
        for one in facts.evaluation.misjudged
    ]
    head = ("", "scan", f"predicted risk, {HORIZON_YEARS} y", "years to death or last contact")
    return Table(head, tuple(rows))


def _steps(facts: Facts) -> str:
    # The report is itself a step, and is not done while it is written.
    steps = facts.run.get("steps") or {}
    unfinished = [n for n, s in steps.items() if s.get("state") != "done" and n not in ("report", "bundle")]
    if not steps:
        return "not available"
    return "not finished: " + ", ".join(unfinished) if unfinished else "every step before the report is done"


def _card(facts: Facts) -> tuple[tuple[str, str], ...]:
    """The model card: what, on whom, how well, where not."""
    items = {i.number: i.value for i in tripod_ai(facts)}
    weights = {i.number: i.value for i in claim(facts)}["27"]
    name, version = facts.setting("bundle", "name"), facts.setting("bundle", "version")
    use = "demonstration only: synthetic phantoms" if facts.synthetic else "research only; no medical device"
    return (
        ("Name and version", f"{name} {version}" if name else "not available"),
        ("Intended use", use),
        (
            "Not for",
            "diagnosis, treatment, triage, screening; other diseases, body parts or contrast-enhanced protocols",
        ),
        (
            "Input",
            "one chest CT, preprocessed by the node; measured features; the latest earlier scan where there is one",
        ),
        ("Output", items["15"]),
        ("Models", f"{items['12c']}; weights of the ensemble: {weights}"),
        ("Training population", items["5a"]),
        ("Participants and events", items["21"]),
        ("Performance, out of fold", items["23a"]),
        ("Calibration", items["12f"]),
        ("Limits", items["26"]),
        ("Software", items["18f"]),
        ("Steps of the run", _steps(facts)),
    )
