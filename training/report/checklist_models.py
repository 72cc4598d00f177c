"""What the checklists ask about the models: predictors, architecture, initialisation, fitting and selection.

Settings include defaults; the result of each fold is in its `fit.json`.
"""

from collections import Counter

from training.features.harmonise import MOST_MISSING, MOST_MISSING_CHANGE
from training.report.run_facts import RunFacts

_MEASURED = "radiomics"


def predictors(facts: RunFacts) -> str:
    """Return what each arm sees; of the measured numbers only the families that the arm was given."""
    found = []
    families = _families(facts)
    if families:
        counts = ", ".join(f"{facts.features[family]} {family}" for family in families)
        offered = sum(facts.features[family] for family in families)
        kept = [offered - len(fit["left_out"]) for fit in facts.fits.get(_MEASURED, ()) if "left_out" in fit]
        filtered = f" ({_range(kept)} retained by the filters within each fold)" if kept else ""
        found.append(f"{_MEASURED}: {counts}{filtered}")
    if facts.networks:
        spec = facts.networks.spec
        prior = ", and the same of the most recent prior scan" if facts.networks.prior else ""
        height, width = spec.canvas
        found.append(
            f"{', '.join(facts.network_arms)}: {spec.slices} axial slices of the masked lungs "
            f"({width} x {height} pixels of {spec.spacing_mm:g} mm){prior}"
        )
    return "; ".join(found)


def missing(facts: RunFacts) -> str:
    """How much is missing of what the models are given, and what is done about it."""
    found = []
    families = _families(facts)
    if families:
        shares = ", ".join(f"{family} {facts.missing[family]:.2f} %" for family in families)
        first = " (first scans have no change)" if "change" in families else ""
        limits = f"more than {100 * MOST_MISSING:g} % (change: {100 * MOST_MISSING_CHANGE:g} %)"
        found.append(
            f"{_MEASURED}: missing values: {shares}{first}; features missing in {limits} of a fold's training scans "
            "are dropped, other gaps are imputed with the median of the fold's training scans"
        )
    if facts.networks:
        alone = "; a scan without a prior is evaluated on its own" if facts.networks.prior else ""
        found.append(f"{', '.join(facts.network_arms)}: no missing images{alone}")
    return "; ".join(found)


def models(facts: RunFacts) -> str:
    """Which kinds of model there are, and which of them each fold came to."""
    found = []
    for arm in facts.arms:
        fits = facts.fits.get(arm, ())
        chosen = Counter(str(fit["chosen"]) for fit in fits if "chosen" in fit)
        epochs = [str(fit["best_epoch"]) for fit in fits if "best_epoch" in fit]
        if chosen:
            found.append(
                f"{arm} (selected: {', '.join(f'{k} in {n} of {len(fits)} folds' for k, n in chosen.items())})"
            )
        elif epochs:
            found.append(f"{arm} (slice encoder, attention over slices, hazards; best epochs {', '.join(epochs)})")
        else:
            found.append(arm)
    joined = "; combined as a weighted sum of hazard logits" if facts.ensemble else ""
    return f"arms: {', '.join(found)}{joined}"


def start(facts: RunFacts) -> str:
    """Return what the parameters were before the first step."""
    seed = facts.setting("seed")
    if seed is None:
        return ""
    found = [f"seed {seed}"]
    if facts.networks:
        for arm in facts.network_arms:
            file = facts.networks.pretrained.get(arm)
            found.append(
                f"{arm} initialised " + (f"from ImageNet weights (sha256 {file.sha256})" if file else "randomly")
            )
    return "; ".join(found)


def training(facts: RunFacts) -> str:
    """How the models were fitted, and how many."""
    found = []
    kinds, fits = facts.setting(_MEASURED, "models"), facts.fits.get(_MEASURED, ())
    if _MEASURED in facts.arms and kinds:
        tried = [len(fit["inner_loss"]) for fit in fits if "inner_loss" in fit]
        count = f": {_range(tried)} candidates in each of {len(fits)} folds" if tried else ""
        found.append(f"{_MEASURED}: {', '.join(kinds)}{count}")
    if facts.networks:
        s = facts.networks
        rates = ", ".join(f"{arm} {s.learning_rates.get(arm, s.learning_rate):g}" for arm in facts.network_arms)
        changed = ", ".join(f"{name} {value}" for name, value in s.augmentation.model_dump().items())
        parts = f" in {s.accumulate} parts" if s.accumulate > 1 else ""
        networks = [fit for arm in facts.network_arms for fit in facts.fits.get(arm, ())]
        again = ""
        if networks and all(fit.get("stop_after") for fit in networks):  # not as runs before it did
            again = ", then fitted anew on all training patients for as many epochs as were best"
        found.append(
            f"networks{f' ({len(networks)} fitted)' if networks else ''}: up to {s.epochs} epochs, stopped after "
            f"{s.patience} without improvement of the validation likelihood{again}; batches of {s.batch} scans{parts}; "
            f"AdamW, one-cycle learning rate up to {rates}; weight decay {s.weight_decay:g}; augmentation: {changed}; "
            f"forward pass in {s.precision}"
        )
    return "; ".join(found)


def selection(facts: RunFacts) -> str:
    """How the model of an outer fold was chosen."""
    found = []
    if _MEASURED in facts.arms:
        found.append(
            f"{_MEASURED}: the candidate with the lowest mean loss over the inner folds, refitted on all training "
            "patients of the outer fold"
        )
    if facts.network_arms:
        found.append(
            f"{', '.join(facts.network_arms)}: no selection; fitted on the first inner fold, whose validation patients "
            "determine the epoch to keep"
        )
    return "; ".join(found)


def explained(facts: RunFacts) -> str:
    """Methods of explanation: of the networks alone."""
    if not facts.network_arms:
        return ""
    shown = (
        "attention over slices, shown beside the node's coronal view; not evidence of disease there, and not evaluated"
    )
    return f"{', '.join(facts.network_arms)}: {shown}"


def _families(facts: RunFacts) -> list[str]:
    """Return the families of features that the arm on measured numbers is given, as far as the scans have them."""
    given = (facts.setting(_MEASURED, "families") or ()) if _MEASURED in facts.arms else ()
    return [family for family in given if family in facts.features]


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
