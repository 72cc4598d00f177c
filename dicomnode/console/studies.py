"""The list of studies: by state from a link, by anything else from a form, since search terms are patient data.

What is looked for stands in the body of a request only: in no URL, history or log.
"""

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from dicomnode.console.site import ConsoleSite, Visit
from dicomnode.errors import UsageError
from dicomnode.operations import looking
from dicomnode.operations.looking import STATES
from dicomnode.store.catalog.overview import Wanted

_LIMIT = 50
#: A longer term is nobody's.
_LONGEST = 200
_TERMS = ("patient", "accession", "sender", "since", "text", "state")
#: What a researcher may look for: the others would tell whose a study is.
_RESEARCHERS = ("state",)


def listed(site: ConsoleSite, visit: Visit) -> Response:
    """Show the newest studies, or those in the state that the link names."""
    return _show(site, visit, {"state": visit.query.get("state", "")})


def found(site: ConsoleSite, visit: Visit) -> Response:
    """Show the studies that a form looks for, or the next page of them."""
    return _show(site, visit, dict(visit.form))


def _show(site: ConsoleSite, visit: Visit, given: dict[str, str]) -> Response:
    known = _TERMS if visit.identifies else _RESEARCHERS
    terms = {name: given.get(name, "").strip()[:_LONGEST] if name in known else "" for name in _TERMS}
    try:
        wanted, problem = _wanted(site, terms, given), ""
    except UsageError as error:
        wanted, problem = None, str(error)
    rows: list[dict[str, Any]] = []
    after = None
    if wanted is not None:
        rows, after = site.reading().page(wanted, identify=True)
    values: dict[str, Any] = {"terms": terms, "problem": problem, "states": STATES, "next_page": _next(site, after)}
    status = 400 if problem else 200
    if not visit.identifies:
        rows = [_pseudonymous(site, row) for row in rows]
        return site.page(visit, "studies_pseudonymous.html", status, rows=rows, **values)
    looked_for = ", ".join(name for name, term in terms.items() if term) or "all"
    site.note(visit, "console list of studies", {"looked for": looked_for})
    rows = [{**row, "key": site.keys.key(row["study_uid"])} for row in rows]
    return site.page(visit, "studies.html", status, rows=rows, **values)


def _wanted(site: ConsoleSite, terms: dict[str, str], given: dict[str, str]) -> Wanted:
    terms = dict(terms)
    state = terms.pop("state")
    wanted = looking.wanted(states=(state,) if state else (), limit=_LIMIT, **terms)
    study_uid = site.keys.study_uid(given.get("after", ""))
    if study_uid is None:
        return wanted
    try:
        at = float(given.get("after_at", ""))
    except ValueError:
        return wanted
    return replace(wanted, after=(at, study_uid))


def _next(site: ConsoleSite, after: tuple[float, str] | None) -> dict[str, str]:
    return {} if after is None else {"after_at": repr(after[0]), "after": site.keys.key(after[1])}


def _pseudonymous(site: ConsoleSite, row: dict[str, Any]) -> dict[str, Any]:
    """Return what a researcher may see of a row: chosen, not left over."""
    return {
        "patient": site.pseudonyms.patient(row),
        "scan": site.pseudonyms.scan(row["study_uid"]),
        "key": site.keys.key(row["study_uid"]),
        "state": row["state"],
        "instances": row["instances"],
        "generation": row["generation"],
    }
