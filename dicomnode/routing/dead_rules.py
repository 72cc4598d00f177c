"""Rules that can never take a study, found without one.

What is found is certain, as far as the images of a series agree in the attributes. What is not found may be useless
all the same: several earlier rules that cover a later one only together, and regular expressions that say the same in
other words, are not seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dicomnode.routing.rules import Condition, Rule, RuleSet

#: Attributes that all images of a study share, beside those of the patient (PS3.3 C.7.2.1); one value each.
_OF_THE_STUDY = frozenset({"StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"})


@dataclass(frozen=True)
class Dead:
    """A rule that can never take a study, and why."""

    rule: str
    why: str


def dead_rules(rules: RuleSet, single_valued: Callable[[str], bool]) -> list[Dead]:
    """Return the rules that never take anything, in their order.

    Args:
        rules: all of them, in their order.
        single_valued: whether the attribute of a keyword has one value at most (VM 1, PS3.6).
    """
    found = []
    for number, rule in enumerate(rules.rules):
        contradiction = _contradiction(rule, single_valued)
        if contradiction:
            found.append(Dead(rule.name, contradiction))
            continue
        earlier = rules.rules[:number] if rules.mode == "first" else ()
        by = next((one for one in earlier if covers(one, rule)), None)
        if by is not None:
            found.append(Dead(rule.name, f"rule {by.name!r} comes first and matches everything that it would match"))
    return found


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether every study that `narrow` matches is surely matched by `wide`."""
    if not _names_cover(wide.called_ae, narrow.called_ae) or not _names_cover(wide.calling_ae, narrow.calling_ae):
        return False
    joint = [c for c in wide.conditions if c.scope == "any"]
    # Several conditions on one series follow only from conditions that hold in one series themselves.
    of_one_series = [c for c in narrow.conditions if c.scope != "study"]
    if len(joint) > 1 and not all(any(_follows(w, n) for n in of_one_series) for w in joint):
        return False
    return all(any(_follows(w, n) for n in narrow.conditions) for w in wide.conditions)


def _names_cover(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _follows(wide: Condition, narrow: Condition) -> bool:
    if wide.keyword != narrow.keyword or (wide.scope == "all" and narrow.scope != "all"):
        return False
    if narrow.one_of:
        return all(wide.admits(value) for value in narrow.one_of)
    if wide.one_of:
        return False
    if narrow.matches or wide.matches:
        return narrow.matches == wide.matches
    return _least(wide) <= _least(narrow) and _most(narrow) <= _most(wide)


def _contradiction(rule: Rule, single_valued: Callable[[str], bool]) -> str:
    conditions = rule.conditions
    for number, one in enumerate(conditions):
        for other in conditions[:number]:
            if (
                one.keyword == other.keyword
                and single_valued(one.keyword)
                and _same_value(one, other)
                and _apart(one, other)
            ):
                return f"contradictory conditions: {other}, and {one}"
    return ""


def _same_value(one: Condition, other: Condition) -> bool:
    """Whether both must hold of the same value: of one series, of all series, or of an attribute of the study."""
    scopes = {one.scope, other.scope}
    return "all" in scopes or scopes == {"any"} or one.keyword in _OF_THE_STUDY or one.keyword.startswith("Patient")


def _apart(one: Condition, other: Condition) -> bool:
    if one.one_of:
        return not any(other.admits(value) for value in one.one_of)
    if other.one_of:
        return not any(one.admits(value) for value in other.one_of)
    if one.matches or other.matches:
        return False
    return _least(one) > _most(other) or _least(other) > _most(one)


def _least(c: Condition) -> float:
    return float("-inf") if c.at_least is None else c.at_least


def _most(c: Condition) -> float:
    return float("inf") if c.at_most is None else c.at_most
