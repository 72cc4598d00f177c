"""The slices on a study's page: where they are, and those pictures of them that are made here."""

from starlette.responses import JSONResponse, Response

from dicomnode.console import stacks
from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.console.stacks import NoSliceError, SourceSlice
from dicomnode.dicomweb import picture
from dicomnode.dicomweb.problems import WebError
from dicomnode.dicomweb.search import instance_url
from dicomnode.dicomweb.service import PREFIX

_MOST_SLICES = 99_999


def listed(site: ConsoleSite, visit: Visit) -> Response:
    """Return where the slices of a study are, for the page's script."""
    study_uid = site.study_uid(visit)
    config = site.config
    found = []
    if config.console.dicomweb:
        found = stacks.sources(site.reading().catalog, config.storage.results, study_uid)
    window = f"{stacks.WINDOW[0]:.0f},{stacks.WINDOW[1]:.0f},linear"
    axial = [f"{_place(one)}/rendered?window={window}&viewport=512,512" for one in found]
    mine = f"/study/{visit.params['study']}/slice"
    coronal, sides = (stacks.rows_across(found[0]), stacks.sides(found[0])) if found else (0, "")
    return JSONResponse({"axial": axial[::-1], "coronal": coronal, "sides": sides, "layers": mine})


def _place(one: SourceSlice) -> str:
    url = instance_url(PREFIX, one.held)
    return url if one.frame is None else f"{url}/frames/{one.frame}"


def shown(site: ConsoleSite, visit: Visit) -> Response:
    """Return one picture: a coronal slice, or what lies over a slice. Numbers: from 1, head or front first."""
    study_uid = site.study_uid(visit)
    plane, kind, number = visit.params["plane"], visit.params["kind"], visit.number(_MOST_SLICES)
    if (
        plane not in ("axial", "coronal")
        or kind not in ("image", "outline", "areas")
        or not site.config.console.dicomweb
    ):
        raise NotThereError
    try:
        # Whoever waits for a study to be read holds up nobody who draws.
        stack = site.stacks.stack(site.reading().catalog, site.config.storage.results, study_uid)
        with picture.turn():
            content = stacks.drawn(stack, plane, kind, number)
    except WebError as error:
        return Response(status_code=error.status, headers=error.headers)
    except NoSliceError:
        raise NotThereError from None
    return Response(content, media_type=picture.PNG)
