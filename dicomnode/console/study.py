"""The page of one study."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from dicomnode.analysis.findings import Findings
from dicomnode.console.actions import available
from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.errors import UsageError
from dicomnode.logs import kept
from dicomnode.operations import jobs
from dicomnode.report.numbers import share, whole

_WRITTEN: Final = {
    "volume_ml": whole, "mean_hu": whole, "p15_hu": whole,
    "haa_percent": share, "laa950_percent": share, "dense_percent": share,
}  # fmt: skip
#: Log lines of a study that its page shows.
_MOST_LINES: Final = 100
_REGIONS = {"lungs": "both lungs", "right": "right lung", "left": "left lung"}


def study(site: ConsoleSite, visit: Visit) -> Response:
    """Show one study: its newest generation."""
    study_uid = site.study_uid(visit)
    try:
        shown, found = jobs.described(site.config, site.reading(), study_uid, None, identify=True)
    except UsageError:
        raise NotThereError from None
    site.note_access(visit, study_uid, shown)
    key = visit.params["study"]
    if not visit.identifies:
        return site.page(visit, "study_pseudonymous.html", study=_pseudonymous(site, shown, found), key=key)
    return site.page(
        visit,
        "study.html",
        study=shown,
        found=found,
        numbers=numbers(found),
        key=key,
        actions=available(shown) if visit.may_act else [],
        lines=kept.of_study(site.config.storage.state, study_uid, _MOST_LINES),
        has_slices=found is not None and bool(found.quantities) and site.config.console.dicomweb,
    )


def numbers(found: Findings | None) -> list[dict[str, Any]]:
    """Return a row for each region that was measured."""
    if found is None:
        return []
    return [
        {"region": _REGIONS.get(name, name.replace("_", " ")), **_written(vars(q))}
        for name, q in found.quantities.items()
    ]


def _written(values: Mapping[str, float | None]) -> dict[str, str]:
    given = {name: values.get(name) for name in _WRITTEN}
    return {name: "" if value is None else _WRITTEN[name](value) for name, value in given.items()}


def _pseudonymous(site: ConsoleSite, shown: dict[str, Any], found: Findings | None) -> dict[str, Any]:
    """Return what a researcher may see: chosen, not left over. No date, no UID, no word that came with the images."""
    chosen = None if found is None else found.series
    series = [] if chosen is None else [{"slices": chosen.slices, "decided": "chosen"}]
    for one in () if found is None else found.rejected:
        series.append({"slices": one.slices, "decided": ", ".join(reason.code for reason in one.reasons)})
    return {
        "patient": site.pseudonyms.patient(shown),
        "scan": site.pseudonyms.scan(shown["study_uid"]),
        "state": shown["state"],
        "instances": shown["instances"],
        "generation": shown["generation"],
        "series": series,
        "flags": [] if found is None else [(one.severity, one.code) for one in found.flags],
        "numbers": numbers(found),
        "risk": None if found is None else found.risk,
        "trend": [] if found is None else [(p.days_before, p.volume_ml, p.haa_percent) for p in found.trend],
    }
