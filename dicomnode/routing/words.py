"""A decision of the rules in words, for the terminal and the console."""

from dicomnode.routing.rules import Action, RoutingDecision, RuleVerdict


def taken(decision: RoutingDecision) -> str:
    """Say which rules decided."""
    if not decision.verdicts:
        return "no rules configured"
    return f"matched by {', '.join(decision.taken_by)}" if decision.taken_by else "no rule matches"


def done(action: Action) -> str:
    """Say what is done with the study."""
    if action.analyse is None and not action.forward_to:
        return "ignored"
    hold = ["held until released, then"] if action.hold else []
    parts = []
    if action.analyse is not None:
        to = "all destinations" if action.results_to is None else ", ".join(action.results_to)
        parts.append(f"analysed with {action.analyse!r} ({action.priority}), results to {to}")
    if action.forward_to:
        parts.append(f"originals forwarded to {', '.join(action.forward_to)}")
    return " ".join([*hold, "; ".join(parts)])


def verdict(found: RuleVerdict) -> str:
    """Say what became of one rule."""
    return "applies" if found.taken else "matches, but an earlier rule applies" if found.matched else "no match"


def why(found: RuleVerdict, *, values: bool) -> list[str]:
    """Return a line for each condition. `values`: with what was found in the images, which may be patient data."""
    lines = [f"{'yes' if one.held else 'NO'}: {one.text}" for one in found.checks]
    if values:
        seen = [", ".join(one.seen) or "no value" for one in found.checks]
        lines = [f"{line} (found: {value})" for line, value in zip(lines, seen, strict=True)]
    return lines or ["no conditions: matches every study"]
