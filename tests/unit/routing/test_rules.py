"""Thirty-odd studies (tags only) and a department's rules: who is taken by which rule, and why not by another."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.routing.rules import (
    ANALYSE,
    Action,
    Condition,
    RoutingDecision,
    Rule,
    RuleSet,
    SeriesFacts,
    StudyFacts,
    decide,
    to_number,
)

CHEST = Condition("BodyPartExamined", one_of=("CHEST", "THORAX", "LUNG"))
CT = Condition("Modality", one_of=("CT",))
RULES = (
    Rule("phantoms", Action(), conditions=(Condition("PatientID", matches=r"^(QA|PHANTOM)"),)),
    Rule("minors", Action("default", hold=True), conditions=(Condition("PatientAge", at_most=17.9),)),
    Rule("trial", Action("trial", ("research",), ("research",), priority="research"), called_ae=("TRIAL",)),
    Rule(
        "emergency",
        Action("default", priority="stat"),
        calling_ae=("CT_ER", "CT_ICU"),
        called_ae=("NODE",),
        conditions=(CT, CHEST),
    ),
    Rule(
        "thin",
        Action("thin", ("pacs",)),
        called_ae=("NODE",),
        conditions=(
            Condition("Modality", one_of=("CT",), scope="any"),
            Condition("SliceThickness", at_least=0.4, at_most=1.5, scope="any"),
            Condition("ConvolutionKernel", matches=r"^[bq]?[ir]?[5-7]\d|lung|^yc", scope="any"),
        ),
    ),
    Rule("chest", Action("default"), called_ae=("NODE",), conditions=(CT, CHEST)),
    Rule(
        "described",
        Action("default", forward_to=("archive",)),
        called_ae=("NODE",),
        conditions=(CT, Condition("StudyDescription", matches=r"thora|chest|ild|胸部")),
    ),
    Rule("only pictures", Action(), conditions=(Condition("Modality", one_of=("SC", "OT", "SR"), scope="all"),)),
    Rule("rest of the archive", Action(forward_to=("archive", "backup")), called_ae=("ARCHIVE",)),
    Rule("old", Action("default", hold=True), conditions=(CT, Condition("StudyDate", at_most=20091231))),
    Rule("scanner 3", Action("default"), conditions=(Condition("StationName", one_of=("CT3",)),)),
)

Tags = Mapping[str, object]
THIN = {"Modality": "CT", "SliceThickness": "1.0", "ConvolutionKernel": "B70f"}
THICK = {"Modality": "CT", "SliceThickness": "5", "ConvolutionKernel": "B30f"}
SCOUT = {"Modality": "CT", "ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}

# what | calling | called | what all series have | the series | the rule that takes it
STUDIES: list[tuple[str, str, str, Tags, list[Tags], str | None]] = [
    ("a chest CT, thin", "CT1", "NODE", {"BodyPartExamined": "CHEST"}, [SCOUT, THICK, THIN], "thin"),
    ("thick only", "CT1", "NODE", {"BodyPartExamined": "CHEST"}, [SCOUT, THICK], "chest"),
    ("thin and sharp, in two series", "CT1", "NODE", {"BodyPartExamined": "CHEST"},
     [{**THIN, "ConvolutionKernel": "B30f"}, {**THICK, "ConvolutionKernel": "B70f"}], "chest"),
    ("thin at the limit", "CT1", "NODE", {}, [{**THIN, "SliceThickness": "1.50"}], "thin"),
    ("just above it", "CT1", "NODE", {}, [{**THIN, "SliceThickness": "1.51"}], None),
    ("thickness is no number", "CT1", "NODE", {}, [{**THIN, "SliceThickness": "thin"}], None),
    ("thickness is empty", "CT1", "NODE", {}, [{**THIN, "SliceThickness": ""}], None),
    ("a GE kernel", "CT1", "NODE", {}, [{**THIN, "ConvolutionKernel": "LUNG"}], "thin"),
    ("a Philips kernel", "CT1", "NODE", {}, [{**THIN, "ConvolutionKernel": "YC"}], "thin"),
    ("an iterative kernel with its strength", "CT1", "NODE", {}, [{**THIN, "ConvolutionKernel": "I70f\\2"}], "thin"),
    ("a body part in lower case", "CT1", "NODE", {"BodyPartExamined": "thorax "}, [THICK], "chest"),
    ("another body part", "CT1", "NODE", {"BodyPartExamined": "HEAD"}, [THICK], None),
    ("no body part", "CT1", "NODE", {}, [THICK], None),
    ("no body part, but described", "CT1", "NODE", {"StudyDescription": "CT Thorax nativ"}, [THICK], "described"),
    ("described in Japanese", "CT1", "NODE", {"StudyDescription": "胸部CT"}, [THICK], "described"),
    ("described as something else", "CT1", "NODE", {"StudyDescription": "CT Schädel"}, [THICK], None),
    ("one series of the chest among others", "CT1", "NODE", {},
     [{**THICK, "BodyPartExamined": "ABDOMEN"}, {**THICK, "BodyPartExamined": "CHEST"}], "chest"),
    ("from the emergency room", "CT_ER", "NODE", {"BodyPartExamined": "CHEST"}, [THIN], "emergency"),
    ("from intensive care", "CT_ICU", "NODE", {"BodyPartExamined": "CHEST"}, [THICK], "emergency"),
    ("a head from the emergency room", "CT_ER", "NODE", {"BodyPartExamined": "HEAD"}, [THICK], None),
    ("an MR from the emergency room", "CT_ER", "NODE", {"BodyPartExamined": "CHEST"}, [{"Modality": "MR"}], None),
    ("the emergency room, to the archive", "CT_ER", "ARCHIVE", {"BodyPartExamined": "CHEST"}, [THICK],
     "rest of the archive"),
    ("for the trial", "CT1", "TRIAL", {"BodyPartExamined": "CHEST"}, [THIN], "trial"),
    ("an MR for the trial", "MR1", "TRIAL", {}, [{"Modality": "MR"}], "trial"),
    ("a phantom for the trial", "CT1", "TRIAL", {"PatientID": "QA-2024-11"}, [THIN], "phantoms"),
    ("a patient whose ID holds QA", "CT1", "TRIAL", {"PatientID": "77QA"}, [THIN], "trial"),
    ("a child", "CT1", "NODE", {"PatientAge": "009Y"}, [THIN], "minors"),
    ("a baby, in weeks", "CT1", "NODE", {"PatientAge": "030W"}, [THIN], "minors"),
    ("seventeen", "CT1", "NODE", {"PatientAge": "017Y"}, [THIN], "minors"),
    ("eighteen", "CT1", "NODE", {"PatientAge": "018Y"}, [THIN], "thin"),
    ("an age that is none", "CT1", "NODE", {"PatientAge": "old"}, [THIN], "thin"),
    ("reports alone", "PACS", "NODE", {}, [{"Modality": "SR"}, {"Modality": "SC"}], "only pictures"),
    ("reports with images", "PACS", "NODE", {"BodyPartExamined": "CHEST"}, [{"Modality": "SR"}, THICK], "chest"),
    ("a series without a modality among them", "PACS", "NODE", {}, [{"Modality": "SR"}, {}], None),
    ("anything to the archive", "US1", "ARCHIVE", {}, [{"Modality": "US"}], "rest of the archive"),
    ("an old study", "PACS", "OTHER", {"StudyDate": "20091231"}, [THICK], "old"),
    ("a newer one", "PACS", "OTHER", {"StudyDate": "20100101"}, [THICK], None),
    ("by its station", "PACS", "OTHER", {"StationName": "CT3"}, [{"Modality": "PT"}], "scanner 3"),
    ("a station with a longer name", "PACS", "OTHER", {"StationName": "CT31"}, [{"Modality": "PT"}], None),
    ("no series at all", "CT1", "NODE", {}, [], None),
    ("adopted after a crash: nobody knows who sent it", "", "", {"BodyPartExamined": "CHEST"}, [THIN], None),
]  # fmt: skip


def study(calling: str, called: str, shared: Tags, series: list[Tags]) -> StudyFacts:
    def values(tags: Tags) -> dict[str, tuple[str, ...]]:
        return {k: tuple(x for x in str(v).split("\\") if x) for k, v in {**shared, **tags}.items()}

    callers = ((calling, called),) if called else ()
    return StudyFacts("1.2", callers, tuple(SeriesFacts(f"1.2.{i}", 1, values(t)) for i, t in enumerate(series)))


@pytest.mark.parametrize(
    ("calling", "called", "shared", "series", "expected"), [s[1:] for s in STUDIES], ids=[s[0] for s in STUDIES]
)
def test_the_first_rule_that_matches_takes_it(
    calling: str, called: str, shared: Tags, series: list[Tags], expected: str | None
) -> None:
    found = decide(study(calling, called, shared, series), RuleSet(RULES))
    assert found.taken_by == (() if expected is None else (expected,))
    action = next((r.action for r in RULES if r.name == expected), ANALYSE)
    assert found.action == action
    assert [v.rule for v in found.verdicts] == [r.name for r in RULES]
    for verdict in found.verdicts:
        assert verdict.matched == all(check.held for check in verdict.checks)
        assert verdict.taken == (verdict.rule == expected)


def test_enough_studies() -> None:
    assert len(STUDIES) >= 30
    assert {s[5] for s in STUDIES} == {None, *(r.name for r in RULES)}


BOTH = (
    Rule("a", Action("thin", ("x",), ("archive",), priority="research"), conditions=(CT,)),
    Rule("b", Action("default", ("y", "x"), ("backup", "archive"), priority="stat"), conditions=(CHEST,)),
    Rule("c", Action(), called_ae=("DROP",)),
    Rule("d", Action(forward_to=("z",), hold=True), called_ae=("WAIT",)),
    Rule("e", Action("default"), called_ae=("ALL",)),
)


@pytest.mark.parametrize(
    ("called", "tags", "taken", "action"),
    [
        ("N", {"Modality": "CT"}, "a", Action("thin", ("x",), ("archive",), priority="research")),
        ("N", {"Modality": "CT", "BodyPartExamined": "CHEST"}, "ab",
         Action("thin", ("x", "y"), ("archive", "backup"), priority="stat")),
        ("DROP", {"Modality": "CT"}, "ac", Action("thin", ("x",), ("archive",), priority="research")),
        ("DROP", {"Modality": "MR"}, "c", Action()),
        ("WAIT", {"Modality": "CT"}, "ad", Action("thin", ("x",), ("archive", "z"), hold=True)),
        ("ALL", {"Modality": "CT"}, "ae", Action("thin", None, ("archive",))),
        ("N", {"Modality": "MR"}, "", ANALYSE),
    ],
)  # fmt: skip
def test_all_rules_that_match_together(called: str, tags: Tags, taken: str, action: Action) -> None:
    found = decide(study("A", called, {}, [tags]), RuleSet(BOTH, mode="all"))
    assert found.taken_by == tuple(taken)
    expected = action if taken != "ac" else Action("thin", ("x",), ("archive",), priority="routine")
    assert found.action == expected


@pytest.mark.parametrize(
    ("otherwise", "action"),
    [("analyse", ANALYSE), ("ignore", Action()), ("hold", Action("default", hold=True))],
)
def test_what_no_rule_takes(otherwise: str, action: Action) -> None:
    found = decide(study("A", "B", {}, [THIN]), RuleSet((), otherwise=otherwise))  # type: ignore[arg-type]
    assert (found.taken_by, found.action) == ((), action)


def test_caller_and_called_are_of_one_association() -> None:
    rule = Rule("r", ANALYSE, calling_ae=("CT1",), called_ae=("NODE",))
    crossed = StudyFacts("1", (("CT1", "OTHER"), ("CT2", "NODE")), ())
    assert not decide(crossed, RuleSet((rule,))).verdicts[0].matched
    straight = StudyFacts("1", (("CT1", "NODE"), ("CT2", "OTHER")), ())
    assert decide(straight, RuleSet((rule,))).verdicts[0].matched


def test_the_record_holds_no_values_of_the_images() -> None:
    rules = RuleSet((Rule("named", ANALYSE, conditions=(Condition("PatientName", matches="^M"),)), *RULES))
    found = decide(study("A", "NODE", {"PatientName": "MUSTERMANN^ERIKA"}, [THIN]), rules)
    assert found.verdicts[0].checks[0].seen == ("MUSTERMANN^ERIKA",)
    recorded = found.recorded()
    assert "MUSTERMANN" not in str(recorded)
    again = RoutingDecision.of(recorded)
    assert (again.taken_by, again.action) == (found.taken_by, found.action)
    assert again.recorded() == recorded


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.5", 1.5), (" 12 ", 12), ("020Y", 20), ("006M", 0.5), ("", None), ("20200101", 20200101), ("abc", None)],
)
def test_numbers(text: str, number: float | None) -> None:
    assert to_number(text) == (None if number is None else pytest.approx(number))


@settings(deadline=None)
@given(st.permutations(RULES), st.sampled_from(STUDIES))
def test_order_decides_who_takes_it_and_never_who_matches(
    order: list[Rule], given_study: tuple[str, str, str, Tags, list[Tags], str | None]
) -> None:
    facts = study(*given_study[1:5])
    first, together = decide(facts, RuleSet(tuple(order))), decide(facts, RuleSet(tuple(order), mode="all"))
    assert [v.matched for v in first.verdicts] == [v.matched for v in together.verdicts]
    assert first.taken_by == together.taken_by[:1]
