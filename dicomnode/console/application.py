"""The ASGI application: who may ask for what, within which bounds, and with which headers the answer goes out.

| what a peer could make grow | bound |
|---|---|
| a request's head, body, fields of a form | `server`, `_MOST_BODY`, `_MOST_FIELDS` |
| time to send a body | `_BODY_S` |
| connections at once | `server` |
| attempts to log in, and what is remembered of them | `attempts` |
| people who wait for the OpenID provider; what it answers | `network/openid` |
| passwords compared at once (each 64 MiB) | `passwords` |
| sessions | `store/catalog/console.py` |
"""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomnode import logs
from dicomnode.audit import messages
from dicomnode.config import ConsoleTable
from dicomnode.console import web_door
from dicomnode.console.accounts import same
from dicomnode.console.logins import FLOW, SESSION, VISITOR, cookie
from dicomnode.console.routes import ROUTES, ConsoleRoute
from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.dicomweb.holdings import WebHoldings
from dicomnode.dicomweb.noted import WebTrail
from dicomnode.dicomweb.service import WebService
from dicomnode.dicomweb.store import LateReceiver, StowReceiver
from dicomnode.errors import DicomnodeError, SpoolError, UsageError
from dicomnode.service.processes import receiver_settings
from dicomnode.store.spool import Spool

log = logging.getLogger(__name__)

_MOST_BODY, _MOST_FIELDS, _BODY_S = 16_384, 30, 10.0
_LONGEST_FLOW = 1000
_FORM = "application/x-www-form-urlencoded"
#: What a browser may do with our pages: nothing but what they bring themselves.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ERRORS = {
    400: "That was not possible",
    401: "Please log in",
    403: "Not allowed",
    404: "There is no such page",
    405: "There is no such page",
    413: "The request is too large",
    415: "That is not a form of ours",
    500: "Something went wrong here; the log says where",
    503: "Catalogue, queue or spool do not answer; the log says more",
}


def application(site: ConsoleSite) -> ASGIApp:
    """Return the console as an ASGI application."""
    routes = [Route(one.path, _Endpoint(site, one).answer, methods=[one.method]) for one in ROUTES]
    routes += [Route(f"/static/{path.name}", _file(path), methods=["GET"]) for path in _static()]
    if site.config.console.dicomweb:
        routes += _of_dicomweb(site)

    def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return _error(site, _visit(site, request, {}), 500)
        answer = _error(site, _visit(site, request, {}), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    return _Hardened(Starlette(routes=routes, exception_handlers={HTTPException: refused}), site.config.console)


def _of_dicomweb(site: ConsoleSite) -> list[Route]:
    storage = site.config.storage
    service = WebService(WebHoldings(lambda: site.reading().catalog, storage.results, site.names), WebTrail())
    stow = LateReceiver(lambda: StowReceiver(receiver_settings(site.config), Spool(storage.spool), site.catalog))
    return web_door.routes(site, service, stow, lambda request: _address(site.config.console, request))


def _static() -> list[Path]:
    return sorted((Path(__file__).parent / "static").iterdir())


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


class _Hardened:
    """Refuses other hosts' names (DNS rebinding), and puts the headers on every answer."""

    def __init__(self, inner: ASGIApp, table: ConsoleTable) -> None:
        self._inner = inner
        self._hosts = {name.lower() for name in (*table.names, table.host, "localhost", "127.0.0.1", "::1")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in self._hosts:
            text = "This name is not known here: add it to names in [console]\n"
            await PlainTextResponse(text, 421)(scope, receive, with_headers)
            return
        await self._inner(scope, receive, with_headers)


def host_name(given: str) -> str:
    """Return the name in a Host header, without its port."""
    given = given.strip().lower()
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.partition(":")[0]


class _Endpoint:
    """One route: asks who it is, whether he may, and whether the form is ours; then shows the page."""

    def __init__(self, site: ConsoleSite, route: ConsoleRoute) -> None:
        self._site, self._route = site, route

    async def answer(self, request: Request) -> Response:
        """Answer one request, in a thread of its own."""
        form: Mapping[str, str] = {}
        if self._route.method == "POST":
            form = await _form(request)
        return await run_in_threadpool(self._guarded, request, form)

    def _guarded(self, request: Request, form: Mapping[str, str]) -> Response:
        visit = Visit("", {}, {}, {})
        try:
            visit = _visit(self._site, request, form)
            visit = replace(visit, user=self._site.accounts.who(visit.token, uses=self._route.uses))
            return self._judged(request, visit)
        except NotThereError:
            return _error(self._site, visit, 404)
        except SpoolError as error:
            log.warning("a page of the console could not be shown: %s", error)
            return _error(self._site, visit, 503)
        except UsageError as error:
            return _error(self._site, visit, 400, str(error))
        except DicomnodeError as error:
            log.warning("a page of the console could not be shown: %s", error)
            return _error(self._site, visit, 500)
        except Exception as error:  # noqa: BLE001  (one page is broken; the others go on)
            logs.log_unexpected(log, error, "a page of the console is broken")
            return _error(self._site, visit, 500)

    def _judged(self, request: Request, visit: Visit) -> Response:
        route, site = self._route, self._site
        if route.method == "POST" and not _is_ours(request):
            return _error(site, visit, 403, "The form came from another site.")
        return self._public(visit) if route.is_public else self._for_users(visit)

    def _public(self, visit: Visit) -> Response:
        mark = self._site.accounts.login_mark(visit.visitor) if visit.visitor else ""
        if self._route.method == "POST" and not (mark and same(visit.form.get("csrf", ""), mark)):
            return RedirectResponse("/login", 303)  # the form is old, or the browser takes no cookies
        return self._route.page(self._site, visit)

    def _for_users(self, visit: Visit) -> Response:
        route, site, user = self._route, self._site, visit.user
        is_post = route.method == "POST"
        if user is None:
            return _error(site, visit, 401) if is_post or not route.uses else RedirectResponse("/login", 303)
        if user.role not in route.roles:
            site.note(visit, "console page refused", {"page": route.path, "role": user.role}, outcome=messages.MINOR)
            return _error(site, visit, 403)
        if is_post and not same(visit.form.get("csrf", ""), user.csrf):
            return _error(site, visit, 403, "The form is not of this session. Go back, reload the page, and try again.")
        return route.page(site, visit)


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise HTTPException(415)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BODY:
                    raise HTTPException(413, headers={"Connection": "close"})
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(400) from None
    try:
        given = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400) from None
    return dict(given)


def _visit(site: ConsoleSite, request: Request, form: Mapping[str, str]) -> Visit:
    return Visit(
        address=_address(site.config.console, request),
        params={name: str(value) for name, value in request.path_params.items()},
        query=dict(request.query_params),
        form=form,
        token=request.cookies.get(cookie(site, SESSION), ""),
        visitor=request.cookies.get(cookie(site, VISITOR), "")[:200],
        flow=request.cookies.get(cookie(site, FLOW), "")[:_LONGEST_FLOW],
    )


def _address(table: ConsoleTable, request: Request) -> str:
    """Return who calls; of what a proxy says its own word only, which is the last."""
    address = "" if request.client is None else request.client.host
    if table.behind_proxy:
        told = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        with suppress(ValueError):
            address = str(ipaddress.ip_address(told))
    return address


def _is_ours(request: Request) -> bool:
    """Whether a browser says that a form came from our own page; one that says nothing is judged by its token."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin", "null")
    return origin == "null" or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()


def _error(site: ConsoleSite, visit: Visit, status: int, text: str = "") -> Response:
    title = _ERRORS.get(status, "That did not work")
    return site.page(visit, "error.html", status, title=title, text=text)
