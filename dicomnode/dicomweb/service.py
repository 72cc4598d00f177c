"""Every resource of the service (PS3.18 tables 10.3-1, 10.4-1, 10.5-1, 10.6-1) and what answers it; a test walks it.

Who asks has been let in by then (`console.web_door`).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from dicomnode.dicomweb import picture, rendered, retrieve, search
from dicomnode.dicomweb.holdings import WebHoldings
from dicomnode.dicomweb.media import ANY, JSON, MediaRange, accepted
from dicomnode.dicomweb.noted import WebTrail
from dicomnode.dicomweb.problems import WebError, not_acceptable
from dicomnode.dicomweb.query import parse
from dicomnode.reception.holdings import Held, Level

PREFIX: Final = "/dicom-web"
_BULK_PATH = re.compile(r"[0-9A-F]{8}(-[0-9]{1,6}-[0-9A-F]{8}){0,40}")
_KEYWORDS: Final = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


@dataclass(frozen=True)
class WebRequest:
    """A request to read.

    Attributes:
        who, address: of the client.
        params: of the path.
        query: of the URL, in its order.
        accept: the headers of this name.
        base: the service's URL.
    """

    who: str
    address: str
    params: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    accept: Sequence[str]
    base: str

    @property
    def accepts(self) -> list[MediaRange]:
        """What the client takes: by the parameter `accept`, or by its headers (PS3.18 8.3.3.1)."""
        asked = [value for name, value in self.query if name == "accept"]
        return accepted(asked or self.accept)


class WebService:
    """Answers what is read. For several threads."""

    def __init__(self, holdings: WebHoldings, noted: WebTrail) -> None:
        self._holdings, self._noted = holdings, noted

    def search(self, request: WebRequest, level: Level) -> Response:
        """QIDO-RS. Raises WebError, SpoolError."""
        within = {_KEYWORDS[name]: value for name, value in request.params.items()}
        query = parse(level, request.query, within)
        if not any(one.kind in (JSON, "application/json", ANY, "application/*") for one in request.accepts):
            raise not_acceptable(f"what is found is given as {JSON}")
        self._noted.searched(request.who, request.address, query)
        result = search.search(self._holdings, query, request.base)
        headers = (
            {"Warning": ", ".join(f'299 dicomnode "{text}"' for text in result.warnings)} if result.warnings else {}
        )
        if not result.found:
            return Response(status_code=204, headers=headers)
        return Response(json.dumps(result.found, allow_nan=False), media_type=JSON, headers=headers)

    def objects(self, request: WebRequest) -> Response:
        """WADO-RS: whole objects. Raises WebError, SpoolError."""
        return retrieve.objects(self._held(request), request.accepts)

    def metadata(self, request: WebRequest) -> Response:
        """WADO-RS: what the headers say. Raises WebError, SpoolError."""
        return retrieve.metadata(self._held(request), request.accepts, request.base)

    def frames(self, request: WebRequest) -> Response:
        """WADO-RS: pixels. Raises WebError, SpoolError."""
        numbers = retrieve.frame_numbers(request.params["frames"])
        return retrieve.frames(self._held(request)[0], numbers, request.accepts)

    def bulk_data(self, request: WebRequest) -> Response:
        """WADO-RS: one long value. Raises WebError, SpoolError."""
        if not _BULK_PATH.fullmatch(request.params["path"]):
            raise WebError(404, "the metadata name no such value")
        return retrieve.bulk_data(self._held(request)[0], request.params["path"], request.accepts)

    def rendered(self, request: WebRequest) -> Response:
        """WADO-RS: pictures, pages. Raises WebError, SpoolError."""
        how = picture.parse(dict(request.query))
        return rendered.rendered(self._held(request), request.accepts, how, self._numbers(request))

    def thumbnail(self, request: WebRequest) -> Response:
        """WADO-RS: one small picture. Raises WebError, SpoolError."""
        how = picture.parse(dict(request.query), thumbnail=True)
        return rendered.thumbnail(self._held(request), request.accepts, how, self._numbers(request))

    def _numbers(self, request: WebRequest) -> list[int]:
        given = request.params.get("frames")
        return [] if given is None else retrieve.frame_numbers(given)

    def _held(self, request: WebRequest) -> list[Held]:
        named = request.params
        held = self._holdings.objects(named["study"], named.get("series", ""), named.get("instance", ""))
        self._noted.looked_at(request.who, request.address, held)
        return held


@dataclass(frozen=True)
class WebRoute:
    """A resource. `answer`: None is what stores."""

    method: str
    path: str
    answer: Callable[[WebService, WebRequest], Response] | None


def _searching(level: Level) -> Callable[[WebService, WebRequest], Response]:
    return lambda service, request: service.search(request, level)


_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_FRAMES = f"{_INSTANCE}/frames/{{frames}}"

ROUTES: Final[tuple[WebRoute, ...]] = (
    WebRoute("GET", "/studies", _searching("STUDY")),
    WebRoute("GET", "/series", _searching("SERIES")),
    WebRoute("GET", "/instances", _searching("IMAGE")),
    WebRoute("GET", f"{_STUDY}/series", _searching("SERIES")),
    WebRoute("GET", f"{_STUDY}/instances", _searching("IMAGE")),
    WebRoute("GET", f"{_SERIES}/instances", _searching("IMAGE")),
    *(
        WebRoute("GET", f"{level}{name}", answer)
        for level in (_STUDY, _SERIES, _INSTANCE)
        for name, answer in (
            ("", WebService.objects),
            ("/metadata", WebService.metadata),
            ("/rendered", WebService.rendered),
            ("/thumbnail", WebService.thumbnail),
        )
    ),
    WebRoute("GET", _FRAMES, WebService.frames),
    WebRoute("GET", f"{_FRAMES}/rendered", WebService.rendered),
    WebRoute("GET", f"{_FRAMES}/thumbnail", WebService.thumbnail),
    WebRoute("GET", f"{_INSTANCE}/bulkdata/{{path}}", WebService.bulk_data),
    WebRoute("POST", "/studies", None),
    WebRoute("POST", _STUDY, None),
)
