"""Mistakes in [[route]], [[profile]] and [[notify]], and what the tables become."""

import json
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import ConfigurationError
from dicomnode.operations import checks
from dicomnode.routing.rules import ANALYSE, Action, Condition, RuleSet
from tests.conftest import ROOT

PACS = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 9\n'
RULE = PACS + '[[route]]\nname = "a"\n'
MAIL = (
    '[[notify]]\nname = "it"\nkind = "email"\nto = ["a@b.example"]\nsender = "n@b.example"\nserver = "127.0.0.1:25"\n'
)
HOOK = '[[notify]]\nname = "hook"\nkind = "webhook"\nurl = "http://127.0.0.1:9/x"\n'


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_no_rules_no_routing(tmp_path: Path) -> None:
    assert not load(tmp_path, PACS).routes_studies
    assert load(tmp_path, PACS).rules == RuleSet(())
    assert load(tmp_path, PACS + '[routing]\notherwise = "hold"\n').routes_studies


def test_a_rule_is_read(tmp_path: Path) -> None:
    text = """calling_ae = ["CT1"]
when = [
  { keyword = "Modality", equals = "CT" },
  { keyword = "BodyPartExamined", one_of = ["CHEST", "THORAX"], series = "all" },
  { keyword = "SliceThickness", at_least = 0.5, at_most = 2, series = "any" },
  { keyword = "StudyDescription", matches = "ild" },
]
analyse = "default"
results_to = ["pacs"]
priority = "stat"
"""
    (rule,) = load(tmp_path, RULE + text).rules.rules
    assert rule.action == Action("default", ("pacs",), (), priority="stat")
    assert rule.calling_ae == ("CT1",)
    assert rule.conditions == (
        Condition("Modality", one_of=("CT",)),
        Condition("BodyPartExamined", one_of=("CHEST", "THORAX"), scope="all"),
        Condition("SliceThickness", at_least=0.5, at_most=2.0, scope="any"),
        Condition("StudyDescription", matches="ild"),
    )


def test_a_wrong_event_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            tmp_path,
            "[[notify]]\nname = 'n'\nkind = 'webhook'\nurl = 'http://x'\nevents = ['lost']\nsecret_env = 'K'\n",
        )
    assert len(str(caught.value).splitlines()) == 1


def test_what_only_holds_is_analysed_once_released(tmp_path: Path) -> None:
    (rule,) = load(tmp_path, RULE + "hold = true\n").rules.rules
    assert rule.action == Action(ANALYSE.analyse, hold=True)


def test_a_profile_varies_the_analysis(tmp_path: Path) -> None:
    text = """
[analysis]
radiomics = true
bundle = "b"
[analysis.selection]
min_slices = 30
max_step_mm = 5
[[profile]]
name = "thin"
bundle = ""
radiomics = false
[profile.selection]
max_step_mm = 1.5
"""
    found = load(tmp_path, text).analysis_of("thin")
    assert (found.bundle, found.radiomics, found.segmenter) == ("", False, "classical")
    assert (found.selection.min_slices, found.selection.max_step_mm) == (30, 1.5)
    with pytest.raises(ConfigurationError, match="'gone' is no longer configured"):
        load(tmp_path, text).analysis_of("gone")


def test_a_profile_leaves_behind_what_is_not_its_segmenters(tmp_path: Path) -> None:
    text = f"""
[analysis]
segmenter = "lungmask"
lungmask_weights = "mine.pth"
lungmask_sha256 = "{"0" * 64}"
lungmask_lobe_weights = "LTRCLobes"
[[profile]]
name = "quick"
segmenter = "classical"
[[profile]]
name = "other"
lungmask_weights = "R231"
"""
    quick, other = (load(tmp_path, text).analysis_of(name) for name in ("quick", "other"))
    assert (quick.segmenter, quick.lungmask_weights, quick.lungmask_lobe_weights) == ("classical", None, None)
    assert (other.lungmask_weights, other.lungmask_sha256) == (tmp_path / "R231", None)
    assert other.lungmask_lobe_weights == tmp_path / "LTRCLobes"


MISTAKES = [
    ("keyword", RULE + "when = [{ keyword = 'BodyPart', equals = 'x' }]\nignore = true\n",
     ["route[1].when[1].keyword", "'BodyPart'", "perhaps you meant 'BodyPartExamined'"]),
    ("a sequence", RULE + "when = [{ keyword = 'RequestAttributesSequence', equals = 'x' }]\nignore = true\n",
     ["is a sequence or binary"]),
    ("no test", RULE + "when = [{ keyword = 'Modality' }]\nignore = true\n", ["exactly one of equals"]),
    ("two tests", RULE + "when = [{ keyword = 'Modality', equals = 'CT', matches = 'x' }]\nignore = true\n",
     ["exactly one of equals"]),
    ("empty range", RULE + "when = [{ keyword = 'Rows', at_least = 3, at_most = 2 }]\nignore = true\n", ["swap"]),
    ("pattern", RULE + "when = [{ keyword = 'Modality', matches = '(' }]\nignore = true\n",
     ["not a regular expression"]),
    ("does nothing", RULE, ["rule 'a' does nothing"]),
    ("ignores and does", RULE + "ignore = true\nhold = true\n", ["ignore = true cannot be combined"]),
    ("results of nothing", RULE + "forward_to = ['pacs']\nresults_to = ['pacs']\n", ["results_to needs analyse"]),
    ("destination", RULE + "forward_to = ['pac']\n", ["rule 'a'", "no destination 'pac'", "'pacs'"]),
    ("profile", RULE + "analyse = 'thin'\n", ["no profile 'thin'", "known: default"]),
    ("AE title", RULE + "called_ae = ['ILD']\nignore = true\n", ["no AE title 'ILD'", "DICOMNODE"]),
    ("priority", RULE + "ignore = true\npriority = 'urgent'\n", ["route[1].priority", "'urgent'", "'stat'"]),
    ("two of one name", RULE + "ignore = true\n[[route]]\nname = 'a'\nignore = true\n", ["two tables are named 'a'"]),
    ("the default profile", "[[profile]]\nname = 'default'\n", ["[analysis] itself"]),
    ("mode", "[routing]\nmode = 'any'\n", ["routing.mode", "'any'"]),
    ("no address", MAIL.replace("to = ", "# to = "), ["'it'", "needs to"]),
    ("unsigned webhook", HOOK, ["a webhook is signed", "secret_file or secret_env"]),
    ("two secrets", HOOK + "secret_file = 'k'\nsecret_env = 'K'\n", ["not both"]),
    ("user without password", MAIL + "user = 'u'\n", ["which hold the password"]),
    ("event", MAIL + "events = ['fail']\n", ["notify[1].events[1]", "'fail'", "perhaps you meant 'failed'"]),
    ("unknown name", MAIL + "template = '$study'\n", ["template names $study", "study_uid"]),
    ("a dollar sign", MAIL + "template = '5 $ a piece'\n", ["write '$$'"]),
    ("patient data", MAIL + "subject = '$PatientName'\n", ["$PatientName is patient data", "patient_data = true"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_is_answered_with_its_cure(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    for part in says:
        assert part in str(caught.value)


def test_any_called_ae_where_none_is_checked(tmp_path: Path) -> None:
    text = "[node]\ncheck_called_ae = false\n" + RULE + "called_ae = ['ILD']\nignore = true\n"
    assert load(tmp_path, text).rules.rules[0].called_ae == ("ILD",)


def test_check_names_rules_that_can_never_match(tmp_path: Path) -> None:
    text = (
        "[[node.callers]]\nae_title = 'CT1'\n" + PACS + "[[route]]\nname = 'all CT'\nignore = true\n"
        "when = [{ keyword = 'Modality', equals = 'CT' }]\n"
        "[[route]]\nname = 'late'\nignore = true\nwhen = [{ keyword = 'Modality', equals = 'CT' }, "
        "{ keyword = 'BodyPartExamined', equals = 'CHEST' }]\n"
        "[[route]]\nname = 'odd'\nignore = true\nwhen = [{ keyword = 'Modality', equals = 'MR', series = 'all' }, "
        "{ keyword = 'Modality', equals = 'PT', series = 'any' }]\n"
        "[[route]]\nname = 'stranger'\nignore = true\ncalling_ae = ['CT9']\n"
        "[[profile]]\nname = 'unused'\n"
    )
    found = {r.what: r for r in (*checks._rules(load(tmp_path, text)), *checks._profiles(load(tmp_path, text)))}
    assert {name: r.ok for name, r in found.items()} == {
        "rule all CT": True, "rule late": False, "rule odd": False, "rule stranger": False, "profile unused": True,
    }  # fmt: skip
    assert "rule 'all CT' comes first" in found["rule late"].text
    assert "contradictory conditions" in found["rule odd"].text
    assert "[[node.callers]]" in found["rule stranger"].text


def test_shipped_example_shows_every_key_and_its_rules_are_right(tmp_path: Path) -> None:
    text = (ROOT / "ae_config.toml").read_text("utf-8")
    tables = (config.RoutingTable, config.RouteTable, config.ProfileTable, config.NotifyTable)
    for key in {key for table in tables for key in table.model_fields}:
        assert f"{key} = " in text or f"[profile.{key}]" in text, f"ae_config.toml does not show {key}"
    # The commented tables, as somebody would have them who takes the signs away.
    begin, end = text.index("# [[profile]]"), text.index("# End of the examples")
    shown = "\n".join(line.removeprefix("# ") for line in text[begin:end].splitlines())
    full = load(tmp_path, text[:begin].replace("ae_titles = []", 'ae_titles = ["ILD", "TRIAL"]') + shown)
    assert len(full.rules.rules) >= 3
    assert all(r.ok for r in checks._rules(full)), json.dumps([r.text for r in checks._rules(full)])
    assert {n.kind for n in full.notify} == {"email", "webhook"}
