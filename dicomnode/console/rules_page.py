"""The rules of routing, and what they would decide: of a study that is here, or of one that a person describes."""

from pathlib import Path

from pydicom.datadict import dictionary_VM, tag_for_keyword
from starlette.responses import Response

from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.errors import UsageError
from dicomnode.routing import study_facts, words
from dicomnode.routing.dead_rules import dead_rules
from dicomnode.routing.rules import RoutingDecision, SeriesFacts, StudyFacts, decide

#: AE titles (PS3.5 section 6.2), lines of a description and values of one line.
_LONGEST_TITLE, _MOST_LINES, _MOST_VALUES = 16, 100, 20


def rules(site: ConsoleSite, visit: Visit) -> Response:
    """Show the rules in their order, and the form for a trial."""
    return _page(site, visit, {})


def tried(site: ConsoleSite, visit: Visit) -> Response:
    """Show what the rules would do with a study of one series that is described in the form."""
    given = {name: visit.form.get(name, "") for name in ("calling", "called", "attributes")}
    try:
        facts = described(given["calling"], given["called"] or site.config.node.ae_title, given["attributes"])
    except UsageError as error:
        return _page(site, visit, given, problem=str(error))
    return _page(site, visit, given, decision=decide(facts, site.config.rules))


def of_study(site: ConsoleSite, visit: Visit) -> Response:
    """Show what the rules would decide of a study as it is now; nothing is done."""
    study_uid = site.study_uid(visit)
    catalog, known = site.reading().catalog, site.config.rules
    if catalog.study(study_uid) is None:
        raise NotThereError
    site.note_access(visit, study_uid, {})
    paths = [Path(one.path) for one in catalog.instances(study_uid)]
    facts = study_facts.facts(study_uid, paths, catalog.callers(study_uid), study_facts.keywords(known))
    return site.page(visit, "study_rules.html", tried=_told(decide(facts, known)), key=visit.params["study"])


def described(calling: str, called: str, attributes: str) -> StudyFacts:
    r"""Return a study of one series from words: a line for each attribute, `Keyword = value`, several values by \\.

    Raises:
        UsageError: a line is none, or its keyword is not of the standard.
    """
    for title in (calling, called):
        if len(title.strip()) > _LONGEST_TITLE:
            raise UsageError(f"An AE title has at most {_LONGEST_TITLE} characters.")
    lines = [line.strip() for line in attributes.splitlines() if line.strip()]
    if len(lines) > _MOST_LINES:
        raise UsageError(f"At most {_MOST_LINES} lines can be tried.")
    values: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        keyword, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise UsageError(f"Line {number} is not of the form Keyword = value, such as Modality = CT.")
        if tag_for_keyword(keyword) is None:
            raise UsageError(f"Line {number}: the standard has no attribute with this keyword (PS3.6): try Modality.")
        found = [one.strip() for one in value.split("\\", _MOST_VALUES) if one.strip()]
        values[keyword] = (*values.get(keyword, ()), *found)
    return StudyFacts("", ((calling.strip(), called.strip()),), (SeriesFacts("", 1, values),))


def _page(
    site: ConsoleSite, visit: Visit, given: dict[str, str], decision: RoutingDecision | None = None, problem: str = ""
) -> Response:
    known = site.config.rules
    dead = {one.rule: one.why for one in dead_rules(known, lambda keyword: dictionary_VM(keyword) == "1")}
    rows = [
        {
            "name": rule.name,
            "calling": ", ".join(rule.calling_ae) or "any",
            "called": ", ".join(rule.called_ae) or "any",
            "conditions": [str(one) for one in rule.conditions],
            "does": words.done(rule.action),
            "dead": dead.get(rule.name, ""),
        }
        for rule in known.rules
    ]
    return site.page(
        visit,
        "rules.html",
        400 if problem else 200,
        rows=rows,
        mode=known.mode,
        otherwise=known.otherwise,
        given=given,
        problem=problem,
        tried=None if decision is None else _told(decision),
    )


def _told(decision: RoutingDecision) -> dict[str, object]:
    rows = [(one.rule, words.verdict(one), words.why(one, values=True)) for one in decision.verdicts]
    return {"taken": words.taken(decision), "done": words.done(decision.action), "rows": rows}
