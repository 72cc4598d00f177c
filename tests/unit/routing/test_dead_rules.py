"""Rules that can never take a study: each kind is found, and nothing is called dead that lives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.routing.dead_rules import covers, dead_rules
from dicomnode.routing.rules import ANALYSE, Condition, Rule, RuleSet, SeriesFacts, StudyFacts, decide

VM_1 = {"Modality", "SliceThickness", "StudyDescription", "PatientAge"}


def dead(*rules: Rule, mode: str = "first") -> dict[str, str]:
    found = dead_rules(RuleSet(rules, mode=mode), lambda keyword: keyword in VM_1)  # type: ignore[arg-type]
    return {d.rule: d.why for d in found}


def rule(name: str, *conditions: Condition, called: tuple[str, ...] = (), calling: tuple[str, ...] = ()) -> Rule:
    return Rule(name, ANALYSE, calling, called, conditions)


def is_(*values: str, scope: str = "study", keyword: str = "Modality") -> Condition:
    return Condition(keyword, one_of=values, scope=scope)  # type: ignore[arg-type]


def thick(least: float | None, most: float | None, scope: str = "any") -> Condition:
    return Condition("SliceThickness", at_least=least, at_most=most, scope=scope)  # type: ignore[arg-type]


def text(pattern: str, keyword: str = "StudyDescription") -> Condition:
    return Condition(keyword, matches=pattern)


SHADOWED = [
    ("behind one that takes all", rule("a"), rule("b", is_("CT"))),
    ("the same twice", rule("a", is_("CT")), rule("b", is_("CT"))),
    ("fewer values", rule("a", is_("CT", "MR")), rule("b", is_("MR"))),
    ("one condition more", rule("a", is_("CT")), rule("b", is_("CT"), text("x"))),
    ("a smaller range", rule("a", thick(None, 3)), rule("b", thick(1, 2))),
    ("a value in a range", rule("a", thick(1, 3)), rule("b", is_("1.25", keyword="SliceThickness", scope="any"))),
    ("a value that a pattern finds", rule("a", text("th")), rule("b", is_("Thorax", keyword="StudyDescription"))),
    ("every series, then any", rule("a", is_("CT", scope="any")), rule("b", is_("CT", scope="all"))),
    ("fewer callers", rule("a", called=("X", "Y")), rule("b", called=("X",), calling=("S",))),
    ("two in one series, said more narrowly", rule("a", is_("CT", "PT", scope="any"), thick(None, 3)),
     rule("b", is_("CT", scope="all"), thick(None, 1))),
]  # fmt: skip


@pytest.mark.parametrize(("wide", "narrow"), [s[1:] for s in SHADOWED], ids=[s[0] for s in SHADOWED])
def test_a_rule_in_the_shadow_of_an_earlier_one(wide: Rule, narrow: Rule) -> None:
    assert dead(wide, narrow) == {"b": "rule 'a' comes first and matches everything that it would match"}
    assert dead(wide, narrow, mode="all") == {}


ALIVE = [
    ("other values", rule("a", is_("CT")), rule("b", is_("CT", "MR"))),
    ("another attribute", rule("a", is_("CT")), rule("b", text("x"))),
    ("any series, after every series", rule("a", is_("CT", scope="all")), rule("b", is_("CT", scope="any"))),
    ("other callers", rule("a", called=("X",)), rule("b")),
    ("a wider range", rule("a", thick(1, 2)), rule("b", thick(1, 3))),
    ("another pattern", rule("a", text("abc")), rule("b", text("ab"))),
    ("two in one series, then in two", rule("a", is_("CT", scope="any"), thick(None, 3)),
     rule("b", is_("CT"), thick(None, 3, "study"))),
    ("a pattern is no range", rule("a", thick(1, 3)), rule("b", Condition("SliceThickness", matches="2", scope="any"))),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [s[1:] for s in ALIVE], ids=[s[0] for s in ALIVE])
def test_a_rule_that_may_take_something(first: Rule, second: Rule) -> None:
    assert dead(first, second) == {}


@pytest.mark.parametrize(
    "conditions",
    [
        (is_("CT", scope="any"), is_("MR", scope="any")),
        (is_("CT", scope="all"), is_("MR")),
        (thick(3, None), thick(None, 2)),
        (thick(None, 2), is_("5", keyword="SliceThickness", scope="any")),
        (text("thorax"), is_("Head", keyword="StudyDescription")),
        (Condition("PatientAge", at_least=18), Condition("PatientAge", at_most=17)),
    ],
)
def test_conditions_that_contradict_each_other(conditions: tuple[Condition, ...]) -> None:
    assert dead(rule("a", *conditions))["a"].startswith("contradictory conditions: ")


@pytest.mark.parametrize(
    "conditions",
    [
        (is_("CT"), is_("PT")),  # PET/CT
        (is_("AXIAL", keyword="ImageType", scope="any"), is_("ORIGINAL", keyword="ImageType", scope="any")),
        (thick(None, 1), thick(3, None, "study")),  # two series
        (text("a"), text("b")),
    ],
)
def test_conditions_that_agree(conditions: tuple[Condition, ...]) -> None:
    assert dead(rule("a", *conditions)) == {}


values = st.sampled_from(["1", "2", "3"])
scopes = st.sampled_from(["study", "any", "all"])
tests = st.one_of(
    st.builds(lambda v: {"one_of": tuple(v)}, st.lists(values, min_size=1, max_size=2)),
    st.builds(lambda v: {"matches": v}, values),
    st.builds(lambda a, b: {"at_least": min(a, b), "at_most": max(a, b)}, st.floats(0, 4), st.floats(0, 4)),
)
conditions = st.builds(
    lambda keyword, scope, test: Condition(keyword, scope=scope, **test), st.sampled_from("AB"), scopes, tests
)
names = st.lists(st.sampled_from("XY"), max_size=2, unique=True).map(tuple)
rules = st.builds(
    lambda calling, called, some: Rule("r", ANALYSE, calling, called, tuple(some)),
    names, names, st.lists(conditions, max_size=3),
)  # fmt: skip
series = st.dictionaries(st.sampled_from("AB"), values.map(lambda v: (v,)))
studies = st.builds(
    lambda callers, some: StudyFacts("1", tuple(callers), tuple(SeriesFacts(str(i), 1, s) for i, s in enumerate(some))),
    st.lists(st.tuples(st.sampled_from("XY"), st.sampled_from("XY")), max_size=2), st.lists(series, max_size=3),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(rules, rules, studies)
def test_what_is_called_covered_is_covered(wide: Rule, narrow: Rule, study: StudyFacts) -> None:
    first, second = decide(study, RuleSet((wide, narrow), mode="all")).verdicts
    if covers(wide, narrow):
        assert first.matched or not second.matched


@settings(max_examples=400, deadline=None)
@given(rules, studies)
def test_what_is_called_contradictory_takes_nothing(one: Rule, study: StudyFacts) -> None:
    if dead_rules(RuleSet((one,)), lambda _: True):
        assert not decide(study, RuleSet((one,))).verdicts[0].matched
