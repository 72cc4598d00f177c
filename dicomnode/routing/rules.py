"""The rules of routing, and the one pure function that applies them: a study's facts in, a decision out.

A condition looks at one DICOM attribute, in one of three ways:

| scope | holds where |
|---|---|
| "study" | any image of the study has such a value |
| "any" | one series has such a value; all conditions of a rule with this scope must hold in the same series |
| "all" | every series of the study has such a value |

An attribute that is absent or empty satisfies nothing. Of an attribute with several values (or different ones in one
series) any value will do. Text is compared without regard to case; regular expressions are searched, not anchored.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Scope = Literal["study", "any", "all"]
Mode = Literal["first", "all"]
Otherwise = Literal["analyse", "ignore", "hold"]
Priority = Literal["stat", "routine", "research"]
#: The most urgent first.
PRIORITIES: tuple[Priority, ...] = ("stat", "routine", "research")
#: The name by which a rule asks for the table [analysis] as it stands.
DEFAULT_PROFILE = "default"
_AGE = re.compile(r"(\d{3})([DWMY])", re.IGNORECASE)
_DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}


@dataclass(frozen=True)
class Condition:
    """A test of one attribute: `one_of`, `matches`, or a range (`at_least`, `at_most`, both included).

    Attributes:
        keyword: the attribute's keyword (PS3.6), such as "BodyPartExamined".
        one_of: values of which one must be there; not used if empty.
        matches: a regular expression; not used if empty.
        at_least, at_most: limits of a number; of an age (VR AS) in years; of a date as YYYYMMDD.
        scope: see the module's table.
    """

    keyword: str
    one_of: tuple[str, ...] = ()
    matches: str = ""
    at_least: float | None = None
    at_most: float | None = None
    scope: Scope = "study"

    def admits(self, value: str) -> bool:
        """Whether one value of the attribute satisfies the test."""
        if self.one_of:
            return value.strip().casefold() in {one.strip().casefold() for one in self.one_of}
        if self.matches:
            return re.search(self.matches, value, re.IGNORECASE) is not None
        number = to_number(value)
        if number is None:
            return False
        return (self.at_least is None or number >= self.at_least) and (self.at_most is None or number <= self.at_most)

    def __str__(self) -> str:
        where = {"study": "", "any": "in one series: ", "all": "in every series: "}[self.scope]
        if self.one_of:
            return f"{where}{self.keyword} is {' or '.join(self.one_of)}"
        if self.matches:
            return f"{where}{self.keyword} matches /{self.matches}/"
        limits = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        limits += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{where}{self.keyword} is {' and '.join(limits)}"


@dataclass(frozen=True)
class Action:
    """What a rule does with the studies that it takes.

    Attributes:
        analyse: the profile to analyse with; None for no analysis.
        results_to: destinations of the results; None for all.
        forward_to: destinations of the received images.
        hold: wait until a person releases the study; then the rest is done.
        priority: in the queue of analyses.
    """

    analyse: str | None = None
    results_to: tuple[str, ...] | None = None
    forward_to: tuple[str, ...] = ()
    hold: bool = False
    priority: Priority = "routine"


#: What happens to every study of a node without rules.
ANALYSE = Action(analyse=DEFAULT_PROFILE)


@dataclass(frozen=True)
class Rule:
    """Takes the studies of which every condition holds. Empty `calling_ae` and `called_ae` say: any."""

    name: str
    action: Action
    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules in their order. `mode`: the first that matches decides, or all that match together do."""

    rules: tuple[Rule, ...]
    mode: Mode = "first"
    otherwise: Otherwise = "analyse"


@dataclass(frozen=True)
class SeriesFacts:
    """A series as rules see it. `values`: by keyword, the different values of its images, decoded."""

    series_uid: str
    images: int
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StudyFacts:
    """A study as rules see it. `callers`: (calling AE title, called AE title) of the associations that brought it."""

    study_uid: str
    callers: tuple[tuple[str, str], ...]
    series: tuple[SeriesFacts, ...]


@dataclass(frozen=True)
class ConditionCheck:
    """Whether one condition held. `seen`: the values that were there; may be patient data, so it is not recorded."""

    text: str
    held: bool
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleVerdict:
    """What one rule said. `taken`: it matched, and no earlier rule had decided."""

    rule: str
    matched: bool
    taken: bool
    checks: tuple[ConditionCheck, ...]


@dataclass(frozen=True)
class RoutingDecision:
    """What is done with a study, and why. `taken_by`: the rules' names; empty where no rule matched."""

    taken_by: tuple[str, ...]
    action: Action
    verdicts: tuple[RuleVerdict, ...] = field(default=())

    def recorded(self) -> dict[str, Any]:
        """For the catalogue: JSON types, no values of the images."""
        verdicts = [
            {
                "rule": v.rule,
                "matched": v.matched,
                "taken": v.taken,
                "checks": [{"text": c.text, "held": c.held} for c in v.checks],
            }
            for v in self.verdicts
        ]
        return {"taken_by": list(self.taken_by), "action": asdict(self.action), "verdicts": verdicts}

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Self:
        """Return the decision that `recorded` wrote."""
        action = dict(recorded["action"])
        results_to = action["results_to"]
        action["results_to"] = None if results_to is None else tuple(results_to)
        action["forward_to"] = tuple(action["forward_to"])
        verdicts = tuple(
            RuleVerdict(
                v["rule"], v["matched"], v["taken"], tuple(ConditionCheck(c["text"], c["held"]) for c in v["checks"])
            )
            for v in recorded["verdicts"]
        )
        return cls(tuple(recorded["taken_by"]), Action(**action), verdicts)


def decide(study: StudyFacts, rules: RuleSet) -> RoutingDecision:
    """Apply the rules to a study. The same facts and rules always give the same decision."""
    verdicts: list[RuleVerdict] = []
    taken: list[Rule] = []
    for rule in rules.rules:
        checks = _checks(rule, study)
        matched = all(check.held for check in checks)
        takes = matched and (rules.mode == "all" or not taken)
        if takes:
            taken.append(rule)
        verdicts.append(RuleVerdict(rule.name, matched, takes, checks))
    action = together([rule.action for rule in taken]) if taken else _otherwise(rules.otherwise)
    return RoutingDecision(tuple(rule.name for rule in taken), action, tuple(verdicts))


def together(actions: Sequence[Action]) -> Action:
    """One action of those of all rules that match.

    The first that analyses names the profile (a study is analysed once); destinations are joined, the most urgent
    priority counts, and one rule that holds is enough. A rule that ignores adds nothing.
    """
    analysing = [a for a in actions if a.analyse is not None]
    subsets = [a.results_to for a in analysing]
    everywhere = any(subset is None for subset in subsets)
    return Action(
        analyse=analysing[0].analyse if analysing else None,
        results_to=None if everywhere or not subsets else _joined(s for s in subsets if s is not None),
        forward_to=_joined(a.forward_to for a in actions),
        hold=any(a.hold for a in actions),
        priority=min((a.priority for a in actions), key=PRIORITIES.index),
    )


def _joined(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _otherwise(otherwise: Otherwise) -> Action:
    if otherwise == "ignore":
        return Action()
    return Action(analyse=DEFAULT_PROFILE, hold=otherwise == "hold")


def _checks(rule: Rule, study: StudyFacts) -> tuple[ConditionCheck, ...]:
    return (*_caller_checks(rule, study), *_condition_checks(rule, study))


def _caller_checks(rule: Rule, study: StudyFacts) -> tuple[ConditionCheck, ...]:
    checks = []
    if rule.called_ae:
        called = tuple(sorted({called for _, called in study.callers}))
        held = any(one in rule.called_ae for one in called)
        checks.append(ConditionCheck(f"called AE is {' or '.join(rule.called_ae)}", held, called))
    if rule.calling_ae:
        # Of the associations that called us by the right name, where that is asked too.
        calling = tuple(sorted({c for c, called in study.callers if not rule.called_ae or called in rule.called_ae}))
        held = any(one in rule.calling_ae for one in calling)
        checks.append(ConditionCheck(f"calling AE is {' or '.join(rule.calling_ae)}", held, calling))
    return tuple(checks)


def _condition_checks(rule: Rule, study: StudyFacts) -> tuple[ConditionCheck, ...]:
    joint = [c for c in rule.conditions if c.scope == "any"]
    best = max(study.series, key=lambda series: sum(_holds(c, series) for c in joint), default=None)
    checks = []
    for condition in rule.conditions:
        seen = tuple(dict.fromkeys(v for s in study.series for v in s.values.get(condition.keyword, ())))
        if condition.scope == "any":
            # The series in which most of them hold: if not all do there, no series takes the rule.
            held = best is not None and _holds(condition, best)
        elif condition.scope == "all":
            held = bool(study.series) and all(_holds(condition, series) for series in study.series)
        else:
            held = any(_holds(condition, series) for series in study.series)
        checks.append(ConditionCheck(str(condition), held, seen))
    return tuple(checks)


def _holds(condition: Condition, series: SeriesFacts) -> bool:
    return any(condition.admits(value) for value in series.values.get(condition.keyword, ()))


def to_number(value: str) -> float | None:
    """Return a value as a number: DS, IS, binary, dates as YYYYMMDD; ages (PS3.5 6.2, VR AS) in years.

    None if it is none.
    """
    age = _AGE.fullmatch(value.strip())
    if age is not None:
        return int(age[1]) * _DAYS[age[2].upper()] / 365.25
    try:
        return float(value)
    except ValueError:
        return None
