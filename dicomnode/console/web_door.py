"""The way to DICOMweb: who asks, and whether he may. What he asks for: `dicomweb.service`.

A program shows the token that `dicomnode console token add` has given it (RFC 6750); a browser in which somebody is
logged in reads by its session. To store takes a token that stands for a caller: a page elsewhere can make a browser
send much, and no token.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dicomnode import logs
from dicomnode.console.logins import SESSION, cookie
from dicomnode.console.roles import READERS
from dicomnode.console.site import ConsoleSite
from dicomnode.dicomweb.media import JSON
from dicomnode.dicomweb.problems import WebError
from dicomnode.dicomweb.service import PREFIX, ROUTES, WebRequest, WebRoute, WebService
from dicomnode.dicomweb.store import LateReceiver, StowRequest
from dicomnode.errors import DicomnodeError, SpoolError

log = logging.getLogger(__name__)

#: Parameters of a URL; a body that is silent for so long is given up.
_MOST_PARAMETERS, _SILENT_S = 100, 30.0
_WHO = {"WWW-Authenticate": 'Bearer realm="dicomnode"'}
_T = TypeVar("_T")


@dataclass(frozen=True)
class WebCaller:
    """Who asks. `calling_ae`: as whom he may store; "": he may not."""

    name: str
    address: str
    calling_ae: str = ""


def routes(
    site: ConsoleSite, service: WebService, stow: LateReceiver, address: Callable[[Request], str]
) -> list[Route]:
    """Return the routes of the service; `address` says who calls, `stow` takes objects in."""
    door = _WebDoor(site, service, stow, address)
    return [Route(PREFIX + one.path, door.endpoint(one), methods=[one.method]) for one in ROUTES]


class _WebDoor:
    def __init__(
        self, site: ConsoleSite, service: WebService, stow: LateReceiver, address: Callable[[Request], str]
    ) -> None:
        self._site, self._service, self._stow, self._address = site, service, stow, address

    def endpoint(self, route: WebRoute) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            try:
                if route.answer is None:
                    return await self._store(request)
                return await run_in_threadpool(self._read, request, route)
            except WebError as error:
                return _told(error)

        return answer

    def _read(self, request: Request, route: WebRoute) -> Response:
        def read() -> Response:
            caller = self._caller(request)
            asked = WebRequest(
                caller.name,
                caller.address,
                {name: str(value) for name, value in request.path_params.items()},
                _parameters(request),
                request.headers.getlist("accept"),
                self._base(request),
            )
            assert route.answer is not None
            return _Unbroken(route.answer(self._service, asked))

        return _guarded(read)

    async def _store(self, request: Request) -> Response:
        def begin() -> StowRequest:
            caller = self._caller(request)
            if not caller.calling_ae:
                raise WebError(403, "to store takes a token that stands for a caller (dicomnode console token add)")
            study_uid = str(request.path_params.get("study", ""))
            kind = request.headers.get("content-type", "")
            return self._stow.get().begin(caller.calling_ae, caller.address, kind, study_uid, self._base(request))

        stow = await run_in_threadpool(_guarded, begin)
        try:
            await _feed(request, stow)
            status, told = await run_in_threadpool(_guarded, stow.finish)
        finally:
            await run_in_threadpool(stow.end)
        return Response(json.dumps(told), status, media_type=JSON)

    def _caller(self, request: Request) -> WebCaller:
        """Return who asks.

        Raises:
            WebError: 401, 403, 429: he may not.
            SpoolError: the catalogue failed.
        """
        site, address = self._site, self._address(request)
        given = request.headers.get("authorization")
        if given is None:
            session = request.cookies.get(cookie(site, SESSION), "")
            user = site.accounts.who(session, uses=True)
            if user is None or not _is_own_page(request):
                raise _unknown()
            return self._seen(WebCaller(user.name, address), user.role)
        scheme, _, token = given.partition(" ")
        program = site.tokens.program(token.strip()) if scheme.lower() == "bearer" else None
        if program is None:
            if wait := site.tokens.refused(address):
                raise WebError(429, "too many tokens that are nobody's", {"Retry-After": f"{wait:.0f}"})
            raise _unknown()
        return self._seen(WebCaller(program.name, address, program.calling_ae), program.role)

    @staticmethod
    def _seen(caller: WebCaller, role: str) -> WebCaller:
        if role not in READERS:
            raise WebError(403, "this role may not see whose a study is")
        return caller

    def _base(self, request: Request) -> str:
        table = self._site.config.console
        scheme = "https" if table.is_secure else "http"
        host = request.headers["host"]
        if not table.behind_proxy and ":" not in host.rpartition("]")[2]:
            host = f"{host}:{table.port}"  # some clients leave it out (dicomweb-client)
        return f"{scheme}://{host}{PREFIX}"


async def _feed(request: Request, stow: StowRequest) -> None:
    """Hand over the body as it comes. Raises WebError: it stops, or is not what it says it is."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(_SILENT_S):
                try:
                    chunk = await anext(stream)
                except StopAsyncIteration:
                    return
            if chunk:
                await run_in_threadpool(_guarded, lambda chunk=chunk: stow.feed(chunk))
    except (TimeoutError, ClientDisconnect):
        raise WebError(408, "the body has stopped coming", {"Connection": "close"}) from None


def _guarded(do: Callable[[], _T]) -> _T:
    """Do it; whatever else it raises becomes an answer. Raises WebError."""
    try:
        return do()
    except WebError:
        raise
    except SpoolError as error:
        log.warning("a request of DICOMweb could not be met: %s", error)
        raise WebError(503, "catalogue or spool do not answer", {"Retry-After": "10"}) from None
    except DicomnodeError as error:
        log.warning("a request of DICOMweb could not be met: %s", error)
        raise WebError(500, "something went wrong here; the node's log says where") from None
    except Exception as error:  # noqa: BLE001  (one resource is broken; the others go on)
        logs.log_unexpected(log, error, "a resource of DICOMweb is broken")
        raise WebError(500, "something went wrong here; the node's log says where") from None


def _told(error: WebError) -> Response:
    return PlainTextResponse(f"{error.text}\n", error.status, error.headers)


def _unknown() -> WebError:
    return WebError(401, "DICOMweb is for programs with a token, and for users who are logged in", _WHO)


def _is_own_page(request: Request) -> bool:
    """Whether a browser asks for a page of ours, or its user has typed the address."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def _parameters(request: Request) -> list[tuple[str, str]]:
    try:
        return parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        raise WebError(400, f"the query is not UTF-8, or has more than {_MOST_PARAMETERS} parameters") from None


class _Unbroken(Response):
    """An answer that ends when a part of it cannot be read: the client sees that it is not whole."""

    def __init__(self, inner: Response) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._inner(scope, receive, send)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001  (its head has gone out: nothing more can be told)
            logs.log_unexpected(log, error, "an answer of DICOMweb was cut off")
