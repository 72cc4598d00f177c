"""Logging in by the site's OpenID provider: who is let in, as what, and who is not."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import text

from dicomnode import config
from dicomnode.config import OidcTable
from dicomnode.console import provider_logins
from dicomnode.console.application import application
from dicomnode.console.roles import widest
from dicomnode.console.site import ConsoleSite
from dicomnode.errors import ConfigurationError
from dicomnode.network.openid import OpenIdClient
from dicomnode.operations import checks
from tests.helpers.openid_provider import CLIENT, SECRET, Provider, provider
from tests.unit.console.conftest import PASSWORD, WRITTEN, Browser, client

PUBLIC = "http://127.0.0.1:8480"
BACK = "/login/provider/back"


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def theirs(running: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    running.__init__(int(running.issuer.rpartition(":")[2]))  # type: ignore[misc]
    monkeypatch.setenv("OIDC_SECRET", SECRET)
    return running


Opens = Callable[..., Browser]


@pytest.fixture
def opens(site: ConsoleSite, theirs: Provider) -> Iterator[Opens]:
    """A browser before a console with this provider; arguments are keys of [console.oidc]."""
    clients: list[httpx.Client] = []

    def make(**keys: object) -> Browser:
        configure(site, theirs, **keys)
        clients.append(client(application(site)))
        return Browser(clients[-1])

    yield make
    for one in clients:
        one.close()


def configure(site: ConsoleSite, theirs: Provider, **keys: object) -> None:
    roles = {"ct-operators": "operator", "ct-readers": "reader", "ct-research": "researcher"}
    given = {"issuer": theirs.issuer, "client_id": CLIENT, "client_secret": "env:OIDC_SECRET", "public_url": PUBLIC}
    table = OidcTable.model_validate({**given, "roles": roles, "label": "the clinic's account", **keys})
    site.config = site.config.model_copy(update={"console": site.config.console.model_copy(update={"oidc": table})})
    site.provider = OpenIdClient(table.provider)
    site.accounts._table = site.config.console


def begin(browser: Browser, theirs: Provider) -> dict[str, str]:
    """Go to the provider; what it would send back."""
    answer = browser.get("/login/provider")
    assert answer.status_code == 303, answer.text
    asked = {name: value for name, (value,) in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    theirs.nonce = asked["nonce"]
    return {"code": "the-code", "state": asked["state"]}


def log_in(browser: Browser, theirs: Provider) -> httpx.Response:
    return browser.get(BACK, params=begin(browser, theirs))


def audited(site: ConsoleSite) -> str:
    return site.catalog.audit_waiting(1000)[-1].xml


def test_the_login_page_leads_to_the_provider_beside_local_users(opens: Opens) -> None:
    browser = opens()
    assert "Log in with the clinic&#39;s account" in browser.get("/login").text
    assert browser.log_in("reader").headers["location"] == "/"


def test_local_users_can_be_switched_off(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    assert browser.log_in("reader").status_code == 303
    other = opens()
    mark = other.token("/login")
    configure(site, theirs, local_users=False)
    assert 'name="password"' not in browser.get("/login").text
    form = {"name": "reader", "password": PASSWORD, "csrf": mark}
    assert other.client.post("/login", data=form).status_code == 403
    assert browser.get("/").headers["location"] == "/login"  # who was logged in is so no more
    assert log_in(browser, theirs).status_code == 200
    assert browser.get("/").status_code == 200


def test_an_operator_of_the_provider_is_an_operator_here(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    answer = log_in(browser, theirs)
    assert answer.status_code == 200 and 'http-equiv="refresh"' in answer.text
    session = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("dicomnode="))
    assert re.match(r"dicomnode=[\w-]{43}; HttpOnly; Path=/; SameSite=strict$", session), session
    assert 'UserID="anna"' in audited(site) and 'EventOutcomeIndicator="0"' in audited(site)
    page = browser.get("/peers")
    assert page.status_code == 200 and "anna" in page.text and "operator" in page.text
    assert browser.get("/configuration").status_code == 403
    assert browser.post("/logout").headers["location"] == "/login"
    assert "Logout" in audited(site) and browser.get("/").headers["location"] == "/login"


def test_the_cookie_of_a_login_that_is_begun_says_nothing_and_lasts_some_minutes(
    theirs: Provider, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = opens()
    answer = browser.get("/login/provider")
    (flow,) = answer.headers.get_list("set-cookie")
    assert re.match(r'dicomnode-provider="?[\w=-]{100,600}"?; HttpOnly; Max-Age=600; Path=/; SameSite=lax$', flow), flow
    state = parse_qs(urlsplit(answer.headers["location"]).query)["state"][0]
    assert state not in flow
    monkeypatch.setattr(provider_logins, "FLOW_S", -1)
    assert "too old" in browser.get(BACK, params={"code": "x", "state": state}).text


def test_who_has_no_role_is_refused_in_words_and_noted(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    for groups, allowed in (
        (["others"], ()),
        ([], ()),
        (None, ()),
        ({"ct-operators": 1}, ()),
        ([["ct-operators"]], ()),
        ("CT-OPERATORS", ()),
        (["ct-operators"], ("radiology",)),
        (["radiology"], ("radiology",)),
    ):
        browser = opens(allowed_groups=allowed)
        theirs.user["groups"] = groups
        answer = log_in(browser, theirs)
        assert answer.status_code == 403 and "anna has no role on this node" in answer.text, groups
        assert "no role here" in audited(site) and 'EventOutcomeIndicator="4"' in audited(site)
        assert 'UserID="anna"' in audited(site)
        assert "dicomnode" not in browser.client.cookies and browser.get("/").headers["location"] == "/login"


def test_of_several_roles_the_widest_counts() -> None:
    assert widest(["researcher", "reader", "operator"]) == "operator"
    assert widest(["researcher", "reader"]) == "reader"
    assert widest([]) is None


def test_a_researcher_of_the_provider_sees_pseudonyms_alone(theirs: Provider, opens: Opens) -> None:
    browser = opens()
    theirs.user["groups"] = "ct-research"
    assert log_in(browser, theirs).status_code == 200
    assert browser.get("/studies").status_code == 200 and browser.get("/worklist").status_code == 403


def test_an_answer_that_is_not_of_this_login_is_refused(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    for change, dropped in (
        ({"state": "another"}, ""),
        ({}, "state"),
        ({}, "code"),
        ({"code": "x" * 5000}, ""),
        ({"error": "access_denied"}, ""),
        ({"iss": "https://evil.example"}, ""),
    ):
        back = {**begin(browser, theirs), **change}
        back.pop(dropped, None)
        answer = browser.get(BACK, params=back)
        assert answer.status_code in (400, 403) and "You are not logged in" in answer.text, change
        assert "dicomnode" not in browser.client.cookies
        assert 'UserID="unknown (provider)"' in audited(site)


def test_another_browser_cannot_use_the_answer_and_none_can_use_it_twice(theirs: Provider, opens: Opens) -> None:
    browser, other = opens(), opens()
    back = begin(browser, theirs)
    assert other.get(BACK, params=back).status_code == 400
    assert browser.get(BACK, params=back).status_code == 200
    assert browser.get(BACK, params=back).status_code == 400


def test_a_token_of_another_login_is_refused(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    back = begin(browser, theirs)
    theirs.nonce = "another"
    answer = browser.get(BACK, params=back)
    assert answer.status_code == 403 and "nonce" in answer.text and "nonce" in audited(site)


def test_a_name_that_cannot_stand_in_the_trail_is_refused(theirs: Provider, opens: Opens) -> None:
    browser = opens()
    for name in (None, 7, "", "a\nb", "x" * 65, "\ud800", ["anna"]):
        theirs.user["preferred_username"] = name
        answer = log_in(browser, theirs)
        assert answer.status_code == 403 and "no usable name" in answer.text, name


def test_hostile_names_are_names(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    theirs.user["preferred_username"] = '<script>"&'
    assert log_in(browser, theirs).status_code == 200
    assert "<script>&#34;" not in browser.get("/").text and "&lt;script&gt;&#34;&amp;" in browser.get("/").text
    assert "&lt;script&gt;" in audited(site)


def test_nobody_takes_the_name_of_a_local_user(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    theirs.user["preferred_username"] = "administrator"
    answer = log_in(browser, theirs)
    assert answer.status_code == 403 and "one of this node&#39;s own users" in answer.text
    assert "a local user is called so" in audited(site)


def test_the_sessions_end_as_others_do_and_with_the_provider(site: ConsoleSite, theirs: Provider, opens: Opens) -> None:
    browser = opens()
    assert log_in(browser, theirs).status_code == 200
    configure(site, theirs, issuer="https://login.example")
    assert browser.get("/").headers["location"] == "/login"
    configure(site, theirs)
    assert browser.get("/").status_code == 200
    with site.catalog._engine.begin() as connection:
        connection.execute(text("UPDATE console_sessions SET seen_at = seen_at - 1860"))
    assert browser.get("/").headers["location"] == "/login"


def test_who_comes_back_too_often_in_vain_waits(theirs: Provider, opens: Opens) -> None:
    browser = opens()
    for _ in range(10):
        assert browser.get(BACK).status_code == 400
    answer = browser.get(BACK)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 600
    assert browser.log_in("reader").status_code == 303  # a local user is another matter


def test_a_provider_that_is_away_is_said_so(theirs: Provider, opens: Opens) -> None:
    browser = opens()
    back = begin(browser, theirs)
    theirs.instead = {"/token": (500, b""), "/.well-known/openid-configuration": (500, b"")}
    answer = browser.get(BACK, params=back)
    assert answer.status_code == 503 and "cannot be asked now" in answer.text
    answer = opens().get("/login/provider")
    assert answer.status_code == 503 and "cannot be asked now" in answer.text and 'name="password"' in answer.text


def test_without_a_provider_there_is_none(anybody: Callable[[], Browser]) -> None:
    browser = anybody()
    assert [browser.get(path).status_code for path in ("/login/provider", BACK)] == [404, 404]
    assert "Log in with" not in browser.get("/login").text


GOOD = """
[console.oidc]
issuer = "https://login.example/realms/ct"
client_id = "dicomnode"
client_secret = "file:oidc.secret"
public_url = "http://127.0.0.1:8480"
roles = { "ct-operators" = "operator" }
"""


def load(folder: Path, written: str) -> config.Config:
    (folder / "ae_config.toml").write_text(WRITTEN + written)
    return config.load(folder / "ae_config.toml")


def test_the_configuration_names_a_provider(tmp_path: Path) -> None:
    table = load(tmp_path, GOOD).console.oidc
    assert table is not None
    assert table.provider.redirect_uri == "http://127.0.0.1:8480/login/provider/back"
    assert table.provider.secret == f"file:{tmp_path}/oidc.secret"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("https://login", "http://login"), "must begin with https://"),
        (('public_url = "http://127.0.0.1:8480"', 'public_url = "http://node.example"'), "must begin with https://"),
        (("http://127.0.0.1:8480", "https://127.0.0.1"), "does not lead here: give certificate and key"),
        (("http://127.0.0.1:8480", "http://127.0.0.1:8480/console"), "public_url"),
        (('{ "ct-operators" = "operator" }', "{}"), "console.oidc.roles.*give roles by values"),
        (('= "operator"', '= "operater"'), "operator"),
        (('"file:oidc.secret"', '"my secret"'), "'env:NAME' or 'file:path'"),
        (("issuer =", "isuer ="), "issuer"),
        (("roles =", 'scopes = ["profile"]\nroles ='), "without 'openid'"),
    ],
)
def test_mistakes_are_told(change: tuple[str, str], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load(tmp_path, GOOD.replace(*change))


def test_a_name_that_the_console_does_not_know_is_told(tmp_path: Path) -> None:
    written = WRITTEN.replace("enabled = true", "enabled = true\nbehind_proxy = true")
    other = GOOD.replace("http://127.0.0.1:8480", "https://node.example")
    with pytest.raises(ConfigurationError, match=r"'node.example' is not known here: add it to console.names"):
        (tmp_path / "ae_config.toml").write_text(written + other)
        config.load(tmp_path / "ae_config.toml")


def test_check_asks_the_provider(node: config.Config, theirs: Provider, site: ConsoleSite) -> None:
    configure(site, theirs)
    (good,) = list(checks._provider(site.config))
    assert good.ok and f"{PUBLIC}{BACK}" in good.text
    configure(site, theirs, allowed_groups=("radiology",))
    assert next(checks._provider(site.config)).warning
    theirs.metadata = {"issuer": "http://127.0.0.1:1"}
    (bad,) = list(checks._provider(site.config))
    assert not bad.ok and "calls itself otherwise" in bad.text
    theirs.metadata = {}
    configure(site, theirs, client_secret="env:NOT_SET")
    (bad,) = list(checks._provider(site.config))
    assert not bad.ok and "NOT_SET is empty" in bad.text
    assert list(checks._provider(node)) == []
