"""The items of TRIPOD+AI and CLAIM that software can complete, each with its value or "not available".

TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378. CLAIM, 2024 update: Tejani et al., doi:10.1148/ryai.240300.
All other items (title, background, ethics, funding, interpretation …) are for people to write.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.data.outcomes import edges_of
from training.data.split_kinds import statement
from training.report import checklist_models
from training.report.run_facts import AGE, KERNEL, SCANNER, SEX, THICKNESS, RunFacts

NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Item:
    """An item of a checklist, and the run's answer."""

    number: str
    topic: str
    value: str


def tripod_ai(facts: RunFacts) -> tuple[Item, ...]:
    """TRIPOD+AI's items."""
    rows = (
        ("5a", "Source of data", source(facts)),
        ("6b", "Eligibility", exclusions(facts)),
        ("7", "Data preparation", preparation(facts)),
        ("8a", "Outcome and horizons", outcome(facts)),
        ("9b", "Predictors", checklist_models.predictors(facts)),
        ("10", "Sample size", events(facts)),
        ("11", "Missing data", checklist_models.missing(facts)),
        ("12a", "Data partitioning", _partition(facts)),
        ("12b", "Handling of predictors", _handling(facts)),
        ("12c", "Model type, building and internal validation", checklist_models.models(facts)),
        ("12d", "Heterogeneity between clusters", "subgroups by scanner vendor and kernel (see table)"),
        ("12e", "Performance measures", _MEASURES),
        ("12f", "Model updating", _calibrated(facts)),
        (
            "13",
            "Class imbalance",
            "no resampling or class weights: censored likelihood; calibration is reported",
        ),
        (
            "14",
            "Fairness",
            FAIRNESS,
        ),
        ("15", "Model output", _output(facts)),
        ("16", "Training versus evaluation", "same registry: out-of-fold predictions, no external data"),
        ("18f", "Code", code(facts)),
        ("20a", "Participant flow", flow(facts)),
        ("20b", "Characteristics", "; ".join(f"{c.name}: {c.value}" for c in facts.characteristics)),
        ("21", "Participants and events in each analysis", events(facts)),
        (
            "22",
            "Full model specification",
            _specification(facts),
        ),
        ("23a", "Performance with confidence intervals, overall and in subgroups", performance(facts)),
        ("26", "Limitations", _limitations(facts)),
        (
            "27a",
            "Poor-quality or missing input in use",
            POOR_INPUT,
        ),
    )
    return items(rows)


def claim(facts: RunFacts) -> tuple[Item, ...]:
    """CLAIM's items."""
    rows = (
        ("5", "Prospective or retrospective", "retrospective (from a registry)"),
        ("6", "Goal", "prognosis: death from any cause after a chest CT"),
        ("7", "Source of data", source(facts)),
        ("8", "Inclusion and exclusion", exclusions(facts)),
        ("9", "Preprocessing", preparation(facts)),
        ("11", "De-identification", _pseudonyms(facts)),
        ("12", "Missing data", checklist_models.missing(facts)),
        ("13", "Image acquisition", _named(facts, SCANNER, KERNEL, THICKNESS)),
        ("14", "Reference standard", outcome(facts)),
        ("19", "Assignment to partitions", _partition(facts)),
        ("20", "Level at which partitions are disjoint", "patient; verified at every step"),
        ("21", "Sample size", events(facts)),
        ("22", "Model", checklist_models.models(facts)),
        ("23", "Software", _software(facts)),
        ("24", "Parameter initialisation", checklist_models.start(facts)),
        ("25", "Training", checklist_models.training(facts)),
        ("26", "Selection of the final model", checklist_models.selection(facts)),
        ("27", "Ensembling", _ensemble(facts)),
        ("28", "Performance measures", _MEASURES),
        (
            "29",
            "Uncertainty",
            f"95 % percentile intervals, {facts.evaluation.bootstrap} patient-level bootstrap samples",
        ),
        ("30", "Robustness", "one scan per patient; censoring weights from a Cox model; subgroups (see tables)"),
        ("31", "Explainability", checklist_models.explained(facts)),
        ("32", "Internal evaluation", statement(facts.run.get("split") or {}) or _CROSS_VALIDATED),
        ("33", "External evaluation", ""),
        ("35", "Excluded patients and scans", flow(facts)),
        ("36", "Demographics", _named(facts, AGE, SEX)),
        ("37", "Performance", performance(facts)),
        ("38", "Diagnostic performance with confidence intervals", _diagnostic(facts)),
        ("39", "Failure analysis of incorrectly classified cases", _failures(facts)),
        ("40", "Limitations", _limitations(facts)),
        ("43", "Access to software", code(facts)),
    )
    return items(rows)


_CROSS_VALIDATED = "out-of-fold predictions in nested cross-validation"
_MEASURES = (
    "AUC(t), Uno's C, Brier and scaled Brier score, calibration slope and intercept, sensitivity, specificity, net "
    "benefit; inverse-probability-of-censoring weights"
)

#: Of an evaluation of finished bundles.
MEASURES_EXTERNAL = (
    "AUC(t), Uno's C, Brier and scaled Brier score; ratio of observed to expected, calibration slope, intercept, "
    "smooth curve and integrated calibration index; sensitivity, specificity, net benefit; "
    "inverse-probability-of-censoring weights; paired differences between bundles"
)
_ALONE = {
    "patients": "single registry, no external validation",
    "sites": "single registry: sites left out in turn, which is no validation by others elsewhere",
    "temporal": "single registry: validated on later patients of the same sites alone",
}
FAIRNESS = "subgroups by sex and age (see table); ethnicity and socioeconomic status not in the registry"
POOR_INPUT = "the node withholds the risk and states the reason if the lung segmentation is doubtful"


def items(rows: Sequence[tuple[str, str, str]]) -> tuple[Item, ...]:
    """Return the rows (number, topic, value) as items."""
    return tuple(Item(number, topic, value or NOT_AVAILABLE) for number, topic, value in rows)


def source(facts: RunFacts) -> str:
    """Return where the patients come from, in words."""
    if not facts.registry:
        return ""
    made = {
        "synthetic": "synthetic registry (phantoms, no patients)",
        "node": "registry exported by a dicomnode",
        "training": "registry made from DICOM files",
        "import": "a table of measurements, imported",
    }
    by = str(facts.registry.get("made_by", ""))
    notes = facts.registry.get("notes", "")
    known = "; ".join(f"{name.lower()}: {value}" for name, value in facts.provenance.lines)
    return f"{made.get(by, by)}; {known}" + (f". {notes}" if isinstance(notes, str) and notes else "")


def exclusions(facts: RunFacts) -> str:
    """Return who was left out, and why."""
    if not facts.flow:
        return ""
    reasons = [f"{s.reason} ({s.scans} scans)" for s in facts.flow if s.step == "excluded"]
    return "excluded: " + "; ".join(reasons) if reasons else "all scans in the registry with a known outcome"


def preparation(facts: RunFacts) -> str:
    """Return by what the scans were measured."""
    if facts.registry.get("made_by") == "import":
        stated = facts.registry.get("radiomics_settings") or "not stated"
        return f"measured elsewhere; PyRadiomics settings: {stated}"
    digests = facts.registry.get("algorithm_digest", "")
    stated = ", ".join(map(str, digests)) if isinstance(digests, list) else digests
    return f"the node's own pipeline (dicomnode.analysis), algorithm digest {stated}" if stated else ""


def outcome(facts: RunFacts) -> str:
    """Return what is predicted, and when it is known."""
    transplant = {
        "event": "a lung transplant counts as death",
        "censor": "follow-up is censored at lung transplant",
        "ignore": "a lung transplant is ignored",
    }.get(str(facts.setting("cohort", "transplant")), "")
    horizons = ", ".join(str(h.years) for h in facts.evaluation.horizons)
    text = (
        f"death from any cause within {horizons} years of the scan; censored before a horizon: neither dead nor alive"
    )
    return f"{text}; {transplant}" if transplant else text


def events(facts: RunFacts) -> str:
    """Return how many patients and deaths there are."""
    e = facts.evaluation
    by_year = "; ".join(
        f"{h.years} y: {h.deaths} scans of {h.patients_died} patients followed by death, {h.censored} censored earlier"
        for h in e.horizons
    )
    return f"{e.patients} patients ({e.deaths} died), {e.scans} scans; {by_year}"


def _partition(facts: RunFacts) -> str:
    if not facts.split:
        return ""
    inner = facts.setting("splits", "inner")
    within = f", {inner} inner folds within each" if inner else ""
    sizes = ", ".join(map(str, facts.split))
    digest = facts.run.get("split_sha256", "")
    if said := statement(facts.run.get("split") or {}):
        return f"{said} Outer folds of {sizes} patients{within}; sha256 {digest}"
    return f"{len(facts.split)} outer folds by patient, stratified by death ({sizes} patients){within}; sha256 {digest}"


def _handling(facts: RunFacts) -> str:
    combat = facts.setting("radiomics", "combat")
    if combat is None or "radiomics" not in facts.arms:
        return ""
    harmonised = f"ComBat by {', '.join(combat)}" if combat else "no ComBat"
    return f"scaling and correlation filters within the training folds; {_repeatability(facts)}; {harmonised}"


def _repeatability(facts: RunFacts) -> str:
    """Say from what the repeatability of features was judged, or that it was not."""
    lowest, days = facts.setting("radiomics", "stability"), facts.setting("radiomics", "stability_days")
    judged = [int(fit["repeated"]) for fit in facts.fits.get("radiomics", ()) if "repeated" in fit]
    if not lowest:
        return "no repeatability filter"
    if not judged:  # older runs
        return "repeatability filter over each patient's scans, progression included"
    apart = f"at most {days} days apart" if days else "however far apart, progression included"
    if not all(judged):
        return f"repeatability not judged in every fold: fewer than 20 repetitions, scans {apart}"
    return f"features left out by repeatability below {lowest:g}, from {min(judged)} repetitions or more {apart}"


def _specification(facts: RunFacts) -> str:
    if not facts.setting("bundle", "make"):
        return ""
    return "the bundle of this run: weights, preprocessing, feature order, calibration, hashes"


def _calibrated(facts: RunFacts) -> str:
    if not facts.ensemble:
        return ""
    return f"hazard logits recalibrated on out-of-fold predictions, slope {facts.ensemble.get('slope', 0):.3f}"


def _output(facts: RunFacts) -> str:
    years = ", ".join(f"{edge:g}" for edge in edges_of([h.years for h in facts.evaluation.horizons])[1:])
    return f"probability of death by the end of years {years}; high risk from {facts.evaluation.thresholds}"


def code(facts: RunFacts) -> str:
    """Return which version of the code it was."""
    code, version = facts.run.get("code") or {}, facts.run.get("software", {}).get("dicomnode", "")
    commit = code.get("git_commit", "")
    changed = ", with uncommitted changes" if code.get("git_changed") else ""
    named = f"dicomnode {version}" if version else ""
    return f"{named}, commit {commit}{changed}" if commit else named


def flow(facts: RunFacts) -> str:
    """Return how the cohort came about."""
    return "; ".join(f"{s.step}: {s.patients} patients, {s.scans} scans" for s in facts.flow)


def performance(facts: RunFacts) -> str:
    """Return the primary arm's AUC with its intervals."""
    primary = facts.evaluation.arm(facts.evaluation.primary)
    known = [(h.years, h.auc) for h in primary.horizons if h.auc.value is not None]
    return f"{primary.arm}: " + "; ".join(f"AUC at {y} y {interval(a)}" for y, a in known) if known else ""


def _diagnostic(facts: RunFacts) -> str:
    e = facts.evaluation
    known = [
        f"{h.years} y: sensitivity {interval(h.sensitivity)}, specificity {interval(h.specificity)}"
        for h in e.arm(e.primary).horizons
        if h.sensitivity.value is not None and h.specificity.value is not None
    ]
    return f"{e.primary}, high risk from {e.thresholds}: " + "; ".join(known) if known else ""


def interval(estimate: object) -> str:
    """Return an estimate as text: value (lower to upper), three decimals."""
    values = [getattr(estimate, name) for name in ("value", "lower", "upper")]
    if values[0] is None:
        return NOT_AVAILABLE
    if None in values:
        return f"{values[0]:.3f}"
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)


def _limitations(facts: RunFacts) -> str:
    kept = [*(("synthetic phantoms: the numbers have no meaning for any patient",) if facts.synthetic else ())]
    split = facts.run.get("split") or {}
    return "; ".join([*kept, _ALONE.get(str(split.get("kind")), _ALONE["patients"]), *facts.warnings])


def _pseudonyms(facts: RunFacts) -> str:
    if facts.synthetic:
        return "no patients"
    keys = {
        "node": "the key remains on the node",
        "training": "the key is kept apart from the registry",
        "import": "the key is kept apart from the registry",
    }
    key = keys.get(str(facts.registry.get("made_by")))
    return f"pseudonyms by keyed hash, dates shifted per patient; {key}" if key else ""


def _named(facts: RunFacts, *names: str) -> str:
    return "; ".join(f"{c.name}: {c.value}" for c in facts.characteristics if c.name in names)


def _software(facts: RunFacts) -> str:
    return ", ".join(f"{name} {version}" for name, version in (facts.run.get("software") or {}).items())


def _ensemble(facts: RunFacts) -> str:
    pairs = zip(facts.ensemble.get("arms", ()), facts.ensemble.get("weights", ()), strict=False)
    return ", ".join(f"{arm} {weight:.3f}" for arm, weight in pairs)


def _failures(facts: RunFacts) -> str:
    """CLAIM asks for the misclassified cases."""
    of = facts.evaluation.misjudged
    parts = []
    for died, words in (
        (True, "deaths within {y} years with the lowest"),
        (False, "survivors beyond {y} years with the highest"),
    ):
        risks = [m.risk for m in of if m.died == died]
        if risks:
            named = words.format(y=facts.evaluation.middle_years)
            parts.append(f"the {len(risks)} {named} predicted risk ({min(risks):.3f} to {max(risks):.3f})")
    return "; ".join(parts) + ": see the table of prediction errors" if parts else ""
