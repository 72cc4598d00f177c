"""The report of a run, or of an external validation: one page of HTML, the same as Markdown, and JSON for scripts.

The page needs nothing beside it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from dicomnode.files import write_whole
from training.data.split_kinds import statement
from training.evaluation.misjudged import BEGIN, END
from training.evaluation.records import ArmResult
from training.models.stacking import NAME as ENSEMBLE
from training.report import explained, external, figures, run_facts, validation_checklist
from training.report import tables as report_tables
from training.report.checklists import Item, claim, tripod_ai
from training.report.run_facts import RunFacts
from training.report.tables import STUDY, ReportTable, text_of

FORMAT = 1


@dataclass(frozen=True)
class Content:
    """What the report's three forms share."""

    title: str
    banner: str
    summary: tuple[str, ...]
    tables: dict[str, ReportTable]
    card: tuple[tuple[str, str], ...]
    checklists: dict[str, tuple[Item, ...]]


def write(folder: Path) -> Path:
    """Write `report.html`, `report.md` and `report.json` into a run folder, from what it holds.

    Returns:
        The path of the HTML.

    Raises:
        UsageError: the folder holds no evaluation.
    """
    facts = run_facts.read(folder)
    content = _content(facts)
    environment = Environment(
        loader=PackageLoader("training.report"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    said = "Predictions" if facts.validation else "Out-of-fold predictions"
    html = environment.get_template("report.html.j2").render(
        facts=facts, content=content, predictions=said, plots=_plots(facts)
    )
    markdown = environment.get_template("report.md.j2").render(
        facts=facts, content=content, predictions=said, begin=BEGIN, end=END
    )
    write_whole(folder / "report.md", markdown)
    write_whole(folder / "report.json", _json(facts, content))
    write_whole(folder / "report.html", html)
    return folder / "report.html"


def _json(facts: RunFacts, content: Content) -> str:
    evaluation = json.loads(facts.evaluation.to_json())
    stated = {
        "format": FORMAT,
        "run": facts.name,
        "synthetic": facts.synthetic,
        "evaluation": evaluation,
        "flow": [asdict(step) for step in facts.flow],
        "characteristics": [asdict(c) for c in facts.characteristics],
        "summary": list(content.summary),
        "warnings": list(facts.warnings),
        "published": [asdict(p) for p in STUDY if facts.published],
        "provenance": dict(facts.provenance.lines),
        "model_card": dict(content.card),
        "checklists": {name: [asdict(i) for i in items] for name, items in content.checklists.items()},
        "software": facts.run.get("software"),
        "code": facts.run.get("code"),
        "sha256": facts.run.get("fixed", {}).get("sha256"),
    }
    return json.dumps(stated, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plots(facts: RunFacts) -> dict[str, Markup]:
    evaluation = facts.evaluation
    primary = evaluation.arm(evaluation.primary)
    drawn = {
        "auc": figures.auc_by_horizon(evaluation, [(p.model, p.points) for p in STUDY if p.points and facts.published]),
        "roc": figures.roc(evaluation),
        "calibration": figures.calibration(primary),
        "net_benefit": figures.net_benefit(primary),
        "risk_groups": figures.risk_groups(primary),
    }
    for arm, features in ({} if facts.explanation is None else facts.explanation.features).items():
        drawn[f"explained_{arm}"] = explained.beeswarm(features)
    # SVG that we drew ourselves: every label in it was escaped by matplotlib.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _content(facts: RunFacts) -> Content:
    evaluation = facts.evaluation
    primary = evaluation.arm(evaluation.primary)
    years = [h.years for h in evaluation.horizons]
    within = () if facts.validation else ("auc_within",)  # finished bundles have no folds
    tables = {
        "auc": report_tables.auc(facts),
        "gate": report_tables.gate(facts),
        "differences": report_tables.differences(facts),
        "discrimination": report_tables.by_metric(
            facts,
            (*within, "auc_one_scan", "auc_adjusted", "minus_oracle", "of_oracle"),
        ),
        "calibration": report_tables.calibration(facts),
        "threshold": report_tables.by_metric(facts, ("sensitivity", "specificity", "net_benefit")),
        "horizons": report_tables.horizons(facts),
        "transplants": report_tables.transplants(facts),
        "characteristics": ReportTable(("", ""), tuple((c.name, c.value) for c in facts.characteristics)),
        "subgroups": report_tables.subgroups(primary, years),
        "shifts": report_tables.shifts(facts),
        "explained_features": report_tables.explained_features(facts),
        "explained_networks": report_tables.explained_networks(facts),
        "misjudged": report_tables.misjudged(facts),
    }
    if facts.validation is not None:
        return Content(
            title=external.title(facts),
            banner=external.banner(facts),
            summary=external.summary(facts, primary),
            tables=tables,
            card=external.card(facts),
            checklists={"TRIPOD+AI, external validation": validation_checklist.external(facts)},
        )
    return Content(
        title=f"Evaluation of run {facts.name}",
        banner=_banner(facts),
        summary=summary(facts),
        tables=tables,
        card=_card(facts),
        checklists={"TRIPOD+AI": tripod_ai(facts), "CLAIM 2024": claim(facts)},
    )


def _banner(facts: RunFacts) -> str:
    if facts.synthetic:
        return "Synthetic registry: phantoms with known ground truth. The numbers have no meaning for any patient."
    return "Research use only. Not a medical device; not for diagnosis or treatment. No external validation."


def summary(facts: RunFacts) -> tuple[str, ...]:
    """Return the sentences that the report begins with: who was studied, which arms serve, the main figures."""
    e = facts.evaluation
    primary = e.arm(e.primary)
    lines = [
        f"{e.scans} scans of {e.patients} patients, {e.deaths} of whom died; median follow-up "
        f"{e.median_follow_up_years:.1f} years after a scan. {_independence(primary)}"
    ]
    if said := statement(facts.run.get("split") or {}):
        lines.append(said)
    if (chosen := _chosen(facts)) is not None:
        lines.append(chosen)
    for h in primary.horizons:
        oracle = f", {text_of(h.of_oracle)} of the oracle's" if h.of_oracle else ""
        slope = text_of(h.calibration_slope)
        lines.append(f"{primary.arm}, {h.years} y: AUC {text_of(h.auc)}{oracle}; calibration slope {slope}")
    return tuple(lines)


def _chosen(facts: RunFacts) -> str | None:
    """Say whether the arms were combined, where there were several to choose from."""
    inside = facts.ensemble.get("concordance_inside") or {}
    if "combined" not in inside:
        return None
    used = [arm for arm, w in zip(facts.ensemble["arms"], facts.ensemble["weights"], strict=True) if w > 0]
    ranked = ", ".join(f"{name} {value:.3f}" for name, value in inside.items())
    if len(used) == 1:
        return (
            f"Combining the arms was not better than the best of them by the inner data, so {used[0]} alone is served, "
            f"calibrated (Harrell's C inside: {ranked})."
        )
    return f"The arms are combined, which was better than the best of them by the inner data (Harrell's C: {ranked})."


def _independence(primary: ArmResult) -> str:
    """How independent the evaluated predictions are of the patients they concern."""
    arms = "Each arm predicts a scan with a model that was not fitted on its patient."
    if primary.arm != ENSEMBLE:
        return arms
    return (
        f"{arms} The ensemble's few parameters (a weight per arm, slope, intercepts) are fitted, for each fold, to the "
        "predictions of the other folds. The arms behind these were trained on this fold's patients and outcomes: this "
        "is standard cross-fitted stacking, independent except for these few parameters. The node reports the mean of "
        "the fold models, which itself is not evaluated here."
    )


def _steps(facts: RunFacts) -> str:
    # The report is itself a step, and is not done while it is written.
    steps = facts.run.get("steps") or {}
    unfinished = [n for n, s in steps.items() if s.get("state") != "done" and n not in ("report", "bundle")]
    if not steps:
        return "not available"
    return "incomplete: " + ", ".join(unfinished) if unfinished else "all steps before the report are complete"


def _card(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """Return the model card: what, on whom, how well, where not."""
    items = {i.number: i.value for i in tripod_ai(facts)}
    weights = {i.number: i.value for i in claim(facts)}["27"]
    name, version = facts.setting("bundle", "name"), facts.setting("bundle", "version")
    use = "demonstration only: synthetic phantoms" if facts.synthetic else "research only; not a medical device"
    return (
        ("Name and version", f"{name} {version}" if name else "not available"),
        ("Intended use", use),
        (
            "Not for",
            "diagnosis, treatment, triage, screening; other diseases or body parts; contrast-enhanced protocols",
        ),
        (
            "Input",
            "one chest CT, preprocessed by the node; measured features; the most recent prior scan, if any",
        ),
        ("Output", items["15"]),
        ("Models", f"{items['12c']}; ensemble weights: {weights}"),
        ("Training population", items["5a"]),
        *facts.provenance.lines,
        ("Participants and events", items["21"]),
        ("Out-of-fold performance", items["23a"]),
        ("Calibration", items["12f"]),
        ("Limitations", items["26"]),
        ("Software", items["18f"]),
        ("Run steps", _steps(facts)),
    )
