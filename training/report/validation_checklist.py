"""TRIPOD+AI's items for an evaluation of finished models on other patients: those marked «E» or «D;E» in the checklist.

Collins et al. 2024, doi:10.1136/bmj-2023-078378. What people have to write (background, ethics, funding, setting,
treatments, interpretation …) is not here.
"""

from training.report import checklists
from training.report.checklists import Item
from training.report.run_facts import RunFacts
from training.report.validation_facts import JudgedBundle, ValidationFacts

_MOST_SHIFTS = 5
#: A standardised difference from which two populations count as unlike (0.1 is usual for matched groups, Austin 2009,
#: doi:10.1002/sim.3697; sites differ more).
_UNLIKE = 0.25


def external(facts: RunFacts) -> tuple[Item, ...]:
    """Return the items with what this evaluation has for them."""
    assert facts.validation is not None
    v = facts.validation
    bundles = v.bundles
    rows = (
        ("4", "Objectives", f"external validation of {'; '.join(b.named for b in bundles)}"),
        ("5a", "Source of data", checklists.source(facts)),
        ("5b", "Dates", _dates(facts)),
        ("6b", "Eligibility", checklists.exclusions(facts)),
        ("7", "Data preparation", checklists.preparation(facts)),
        ("8a", "Outcome and horizons", checklists.outcome(facts)),
        ("9b", "Predictors", "; ".join(_predictors(b) for b in bundles)),
        ("10", "Sample size", checklists.events(facts)),
        ("11", "Missing data", _missing(facts)),
        ("12d", "Heterogeneity between clusters", "subgroups by scanner vendor and kernel (see table)"),
        ("12e", "Performance measures", checklists.MEASURES_EXTERNAL),
        ("12f", "Model updating", _updating(v)),
        ("12g", "How predictions were calculated", "; ".join(_calculated(b, v) for b in bundles)),
        ("14", "Fairness", checklists.FAIRNESS),
        ("16", "Differences between development and evaluation data", _differences(facts)),
        ("18f", "Code", checklists.code(facts)),
        ("20a", "Participant flow", checklists.flow(facts)),
        ("20b", "Characteristics", "; ".join(f"{c.name}: {c.value}" for c in facts.characteristics)),
        ("20c", "Comparison with the development data", _shifts(bundles[0])),
        ("21", "Participants and events in each analysis", checklists.events(facts)),
        ("23a", "Performance with confidence intervals, overall and in subgroups", checklists.performance(facts)),
        ("24", "Results of model updating", _updated(facts)),
        ("26", "Limitations", limitations(facts)),
        ("27a", "Poor-quality or missing input in use", checklists.POOR_INPUT),
    )
    return checklists.items(rows)


def limitations(facts: RunFacts) -> str:
    """Return what limits the evaluation, in words."""
    kept = ["synthetic phantoms: the numbers have no meaning for any patient"] if facts.synthetic else []
    kept.append(
        "one registry; pseudonyms of two registries differ, so that a patient of both cannot be recognised by them"
    )
    return "; ".join([*kept, *facts.warnings])


def _dates(facts: RunFacts) -> str:
    of = facts.provenance
    follow_up = f"median follow-up {facts.evaluation.median_follow_up_years:.1f} years"
    return "; ".join(part for part in (of.period and f"scans of {of.period}", of.dates, follow_up) if part)


def _predictors(bundle: JudgedBundle) -> str:
    arms = ", ".join(f"{name} ({kind})" for name, kind in bundle.stated["arms"].items())
    count = len(bundle.stated["features"])
    return f"{bundle.label}: {arms}" + (f"; {count} measured numbers, as in model.toml" if count else "")


def _missing(facts: RunFacts) -> str:
    lost = [step for step in facts.flow if step.step == "excluded" and "gives no risk" in step.reason]
    given = sum(step.scans for step in lost)
    gaps = "; ".join(f"{family} {share:.2f} %" for family, share in facts.missing.items())
    text = "as the node does: without a feature that the model needs there is no risk"
    text += f" ({given} scans, excluded)" if given else " (no scan)"
    return f"{text}; missing cells: {gaps}" if gaps else text


def _calculated(bundle: JudgedBundle, v: ValidationFacts) -> str:
    text = f"{bundle.label}: the bundle itself, asked by node code; mean of {bundle.stated['members']} members"
    if v.recalibration:
        return f"{text}; recalibrated: the same, by intercept and slope that were found on the other folds' patients"
    return f"{text}; nothing was fitted to these patients"


def _updating(v: ValidationFacts) -> str:
    if not (of := v.recalibration):
        return "none"
    return (
        f"recalibrated to {of['site']}: logit of each hazard times {of['slope']:.3f}, plus {of['intercept']:+.3f}; "
        f"judged cross-fitted in {of['folds']} folds by patient"
    )


def _updated(facts: RunFacts) -> str:
    if facts.validation is None or not facts.validation.recalibration:
        return "not updated"
    found = []
    for arm in facts.evaluation.arms:
        slopes = ", ".join(
            f"{h.years} y: observed/expected {checklists.interval(h.observed_to_expected)}, slope "
            f"{checklists.interval(h.calibration_slope)}"
            for h in arm.horizons
        )
        found.append(f"{arm.arm}: {slopes}")
    return "; ".join(found)


def _differences(facts: RunFacts) -> str:
    assert facts.validation is not None
    of = facts.provenance
    parts = []
    for bundle in facts.validation.bundles:
        trained = bundle.provenance
        named = (
            ("disease", trained.disease, of.disease),
            ("sites", ", ".join(trained.sites), ", ".join(of.sites)),
            ("period", trained.period, of.period),
        )
        pairs = "; ".join(f"{what}: {a or 'not stated'} / {b or 'not stated'}" for what, a, b in named)
        parts.append(f"{bundle.label} (development / here): {pairs}")
    return "; ".join(parts)


def _shifts(bundle: JudgedBundle) -> str:
    shifts = bundle.stated["shifts"]
    if not shifts:
        return "the bundle keeps no distribution of its predictors (networks)"
    unlike = [one for one in shifts if abs(one["difference"]) >= _UNLIKE]
    shown = ", ".join(f"{s['feature']} {s['difference']:+.2f} SD" for s in unlike[:_MOST_SHIFTS])
    text = f"{len(unlike)} of {len(shifts)} predictors differ by {_UNLIKE:g} SD of training or more"
    return f"{text}: {shown}" if shown else text
