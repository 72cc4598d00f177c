"""What the report of an external validation says in words: of finished bundles, on patients that they never saw."""

from training.evaluation.records import ArmResult
from training.report.checklists import events, performance
from training.report.run_facts import RunFacts
from training.report.tables import text_of
from training.report.validation_checklist import limitations
from training.report.validation_facts import ValidationFacts


def _of(facts: RunFacts) -> ValidationFacts:
    assert facts.validation is not None
    return facts.validation


def title(facts: RunFacts) -> str:
    """Return the report's title."""
    v = _of(facts)
    names = ", ".join(bundle.label for bundle in v.bundles)
    return (
        f"Recalibration of {names} to {v.recalibration['site']}"
        if v.recalibration
        else f"External validation of {names}"
    )


def banner(facts: RunFacts) -> str:
    """Return what stands above all figures."""
    if facts.synthetic:
        return "Synthetic registry: phantoms with known ground truth. The numbers have no meaning for any patient."
    return "Research use only. Not a medical device; not for diagnosis or treatment."


def summary(facts: RunFacts, primary: ArmResult) -> tuple[str, ...]:
    """Return who was judged on whom, and the figures that decide."""
    e, v = facts.evaluation, _of(facts)
    unseen = (
        "whether these patients were in the training is not known of every bundle (see below)"
        if v.unknown
        else "no bundle was trained on these patients"
    )
    lines = [
        f"{e.scans} scans of {e.patients} patients, {e.deaths} of whom died; median follow-up "
        f"{e.median_follow_up_years:.1f} years after a scan. The bundles are asked as a node asks them; {unseen}."
    ]
    if of := v.recalibration:
        lines.append(
            f"Recalibrated to {of['site']}: logit of each hazard times {of['slope']:.3f}, plus {of['intercept']:+.3f}. "
            f"The arm {primary.arm} is judged cross-fitted in {of['folds']} folds by patient."
        )
    for arm in e.arms:
        lines += [
            f"{arm.arm}, {h.years} y: AUC {text_of(h.auc)}; observed / expected {text_of(h.observed_to_expected)}; "
            f"calibration slope {text_of(h.calibration_slope)}; integrated calibration index {text_of(h.ici)}"
            for h in arm.horizons
        ]
    return tuple(lines)


def card(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """Return the bundles and what they were judged on."""
    v = _of(facts)
    found: list[tuple[str, str]] = []
    for bundle in v.bundles:
        site = bundle.stated["site_calibration"]
        which = f" ({bundle.label})" if len(v.bundles) > 1 else ""
        found += [
            (f"Bundle{which}", bundle.named),
            (f"Intended use{which}", bundle.stated["intended_use"]),
            (f"Trained on{which}", bundle.trained_on),
            (f"Limits{which}", "; ".join(bundle.stated["limits"])),
            *(((f"Recalibrated to{which}", site["site"]),) if site else ()),
        ]
    return (
        *found,
        *((f"{name} (here)", value) for name, value in facts.provenance.lines),
        ("Participants and events", events(facts)),
        ("Performance", performance(facts)),
        ("Limitations", limitations(facts)),
    )
