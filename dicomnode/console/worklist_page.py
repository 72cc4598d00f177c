"""The worklist of a day, as the node last received it."""

import time
from datetime import date, timedelta
from itertools import islice
from typing import Any

from starlette.responses import Response

from dicomnode.console.site import ConsoleSite, Visit
from dicomnode.context import worklist as orders
from dicomnode.errors import UsageError

#: A day with more orders shows so many.
_MOST = 500


def worklist(site: ConsoleSite, visit: Visit) -> Response:
    """Show the orders of the day that the link names, or of today in the RIS's time zone."""
    table = site.config.worklist
    if table is None:
        return site.page(visit, "worklist.html", table=None, rows=[], day=None)
    day = _day(visit.query.get("date", "")) or orders.today(table, time.time())
    found = list(islice(orders.overview(site.reading().catalog, day), _MOST + 1))
    site.note(visit, "console worklist", {"date": day.isoformat()})
    return site.page(
        visit,
        "worklist.html",
        table=table,
        rows=[_row(site, row) for row in found[:_MOST]],
        cut=len(found) > _MOST,
        most=_MOST,
        day=day,
        before=day - timedelta(days=1),
        after=day + timedelta(days=1),
    )


def _day(given: str) -> date | None:
    if not given:
        return None
    try:
        day = date.fromisoformat(given)
    except ValueError:
        day = date.min
    # A day has one before it and one behind it.
    if not date.min < day < date.max:
        raise UsageError("The date is none: write it as 2026-12-31.")
    return day


def _row(site: ConsoleSite, row: dict[str, Any]) -> dict[str, Any]:
    is_here = row["state"] != "not received"
    others = [{**one, "key": site.keys.key(one["study_uid"])} for one in row["others"]]
    return {**row, "key": site.keys.key(row["study_uid"]) if is_here else "", "others": others}
