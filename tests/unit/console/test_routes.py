"""Who may use which route: the table of routes is walked, as each role and as nobody."""

from collections.abc import Callable

import pytest
from starlette.routing import Route

from dicomnode.config.console import LOGIN_BACK
from dicomnode.console import application as application_module
from dicomnode.console.roles import ALL, READERS, ROLES
from dicomnode.console.routes import ROUTES, ConsoleRoute
from dicomnode.console.site import ConsoleSite
from tests.unit.console.conftest import STUDY, Browser

IDS = [f"{one.method} {one.path}" for one in ROUTES]


def path_of(site: ConsoleSite, route: ConsoleRoute) -> str:
    path = route.path.replace("{study}", site.keys.key(STUDY)).replace("{action}", "cancel")
    path = path.replace("{plane}/{kind}/{number}", "coronal/image/1")
    return path.replace("{number}", "0")


def ask(browser: Browser, site: ConsoleSite, route: ConsoleRoute) -> int:
    path = path_of(site, route)
    answer = browser.get(path) if route.method == "GET" else browser.post(path)
    return answer.status_code


def test_nothing_is_public_but_the_login() -> None:
    assert {one.path for one in ROUTES if one.is_public} == {"/login", "/login/provider", LOGIN_BACK}
    assert all(one.roles <= ALL for one in ROUTES)


def test_every_form_that_changes_a_study_is_an_operators() -> None:
    for one in ROUTES:
        if one.method == "POST" and one.path.startswith("/study"):
            assert one.roles.isdisjoint({"reader", "researcher"})
    assert "researcher" not in READERS


def test_the_application_has_these_routes_and_static_files_alone(site: ConsoleSite) -> None:
    inner = application_module.application(site)._inner  # type: ignore[attr-defined]
    found = {(one.path, method) for one in inner.routes if isinstance(one, Route) for method in one.methods or ()}
    known = {(one.path, one.method) for one in ROUTES} | {(one.path, "HEAD") for one in ROUTES if one.method == "GET"}
    assert {path for path, _ in found - known} == {
        f"/static/{name}" for name in ("console.css", "console.js", "icon.svg")
    }
    assert known <= found


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_nobody_gets_no_further_than_the_login(
    route: ConsoleRoute, site: ConsoleSite, anybody: Callable[[], Browser]
) -> None:
    browser, path = anybody(), path_of(site, route)
    answer = browser.client.request(route.method, path, data={"csrf": "0" * 64} if route.method == "POST" else None)
    if route.path in ("/login/provider", LOGIN_BACK):
        assert answer.status_code == 404  # no provider is configured
    elif route.path == "/login":
        assert answer.status_code == (200 if route.method == "GET" else 303)
    elif route.method == "GET" and route.uses:
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    else:
        assert answer.status_code == 401
    assert "ACC100" not in answer.text and STUDY not in answer.text


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_its_routes_and_no_other(
    role: str, site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    browser = logged_in(role)
    # The one that ends the session comes last.
    for route in sorted(ROUTES, key=lambda one: one.path == "/logout"):
        if route.is_public:
            continue
        status = ask(browser, site, route)
        if role in route.roles:
            # 400: the action was not confirmed; what is asked here is whether the door opens.
            # 404: of what nobody has analysed there are no slices.
            opened = (200, 303, 400, *((404,) if "/slice/" in route.path else ()))
            assert status in opened, f"{role} {route.method} {route.path}: {status}"
        else:
            assert status == 403, f"{role} {route.method} {route.path}: {status}"


def test_a_role_that_is_taken_away_ends_at_once(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    browser = logged_in("operator")
    assert browser.get("/studies").status_code == 200
    site.catalog.remove_console_user("operator")
    assert browser.get("/studies").headers["location"] == "/login"


def test_a_refused_page_is_in_the_audit_trail(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    assert logged_in("reader").get("/configuration").status_code == 403
    assert "console page refused" in site.catalog.audit_waiting(100)[-1].xml
