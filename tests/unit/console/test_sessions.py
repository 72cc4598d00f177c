"""Logging in: sessions, their ends, tokens of forms, and how often somebody may try."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from dicomnode import config
from dicomnode.console import attempts
from dicomnode.console.accounts import RefusedLogin
from dicomnode.console.application import application
from dicomnode.console.attempts import LoginAttempts
from dicomnode.console.site import ConsoleSite
from dicomnode.operations import passwords
from dicomnode.store.catalog.catalog import Catalog
from tests.unit.console.conftest import PASSWORD, STUDY, Browser, client


def audited(site: ConsoleSite) -> list[str]:
    return [one.xml for one in site.catalog.audit_waiting(1000)]


def shift(site: ConsoleSite, column: str, seconds: float) -> None:
    with site.catalog._engine.begin() as connection:
        connection.execute(text(f"UPDATE console_sessions SET {column} = {column} - {seconds}"))


def test_a_login_makes_a_new_token_that_only_the_browser_has(site: ConsoleSite, anybody: Callable[[], Browser]) -> None:
    browser = anybody()
    browser.client.cookies.set("dicomnode", "chosen-by-somebody-else")
    answer = browser.log_in("reader")
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("dicomnode="))
    assert re.match(r"dicomnode=[\w-]{43}; HttpOnly; Path=/; SameSite=strict$", cookie), cookie
    token = cookie.partition("=")[2].partition(";")[0]
    with site.catalog._engine.begin() as connection:
        (row,) = connection.execute(text("SELECT * FROM console_sessions")).all()
    assert token not in str(row) and "reader" in str(row)
    assert "User Authentication" in audited(site)[-1] and 'UserID="reader"' in audited(site)[-1]


@pytest.mark.parametrize(("column", "minutes"), [("seen_at", 31), ("began_at", 601)])
def test_a_session_ends_unused_and_in_any_case(
    column: str, minutes: float, site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    browser = logged_in("reader")
    shift(site, column, 60 * (minutes - 2))
    assert browser.get("/").status_code == 200
    shift(site, column, 60 * minutes)
    assert browser.get("/").headers["location"] == "/login"


def test_what_a_page_asks_for_by_itself_keeps_no_session_open(
    site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    browser = logged_in("reader")
    shift(site, "seen_at", 60 * 20)
    assert browser.get("/now").status_code == 200
    shift(site, "seen_at", 60 * 11)
    assert browser.get("/now").status_code == 401


def test_a_logout_ends_the_session_at_the_server(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    browser = logged_in("reader")
    token = browser.client.cookies["dicomnode"]
    assert browser.post("/logout").headers["location"] == "/login"
    browser.client.cookies.set("dicomnode", token)
    assert browser.get("/").headers["location"] == "/login"
    assert "Logout" in audited(site)[-1]


def test_another_password_ends_the_sessions(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    browser = logged_in("reader")
    assert site.catalog.set_console_password("reader", passwords.hashed("another long password"), 2.0)
    assert browser.get("/").headers["location"] == "/login"


def test_sessions_of_one_user_and_of_all_are_bounded(site: ConsoleSite) -> None:
    for number in range(25):
        site.catalog.begin_console_session(f"{number}", "reader", 1000.0 + number, (0.0, 0.0))
    with site.catalog._engine.begin() as connection:
        kept = connection.execute(text("SELECT token FROM console_sessions")).scalars().all()
    assert sorted(map(int, kept)) == list(range(5, 25))


@pytest.mark.parametrize("token", ["", "0" * 64, "Zz" * 40, "é"])
def test_a_form_without_its_token_changes_nothing(
    token: str, site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    browser = logged_in("operator")
    path = f"/study/{site.keys.key(STUDY)}/cancel"
    seen = re.search(r'name="seen" value="(\w+)"', browser.get(path).text)
    assert seen is not None
    for form in ({"csrf": token, "seen": seen[1]}, {"seen": seen[1]}):
        assert browser.client.post(path, data=form).status_code == 403
    job = site.catalog.job(STUDY, 1)
    assert job is not None and job.state == "failed"


def test_a_token_is_one_sessions_alone(logged_in: Callable[[str], Browser]) -> None:
    mine, theirs = logged_in("operator"), logged_in("reader")
    assert mine.client.post("/studies", data={"csrf": theirs.token("/studies")}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_a_form_of_another_site_is_refused_whatever_it_brings(
    headers: dict[str, str], logged_in: Callable[[str], Browser]
) -> None:
    assert logged_in("operator").post("/studies", headers=headers).status_code == 403


def test_a_login_form_is_one_browsers_alone(anybody: Callable[[], Browser]) -> None:
    mine, theirs = anybody(), anybody()
    form = {"name": "reader", "password": PASSWORD, "csrf": theirs.token("/login")}
    answer = mine.client.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "dicomnode" not in mine.client.cookies


@pytest.mark.parametrize("name", ["reader", "nobody", "", "x" * 10_000, "<script>"])
def test_a_wrong_password_says_no_more_than_that(name: str, site: ConsoleSite, anybody: Callable[[], Browser]) -> None:
    answer = anybody().log_in(name, "wrong")
    assert answer.status_code == 403
    assert "Wrong name or password." in answer.text and "<script>alert" not in answer.text
    assert "wrong name or password" in audited(site)[-1]


def test_after_ten_wrong_passwords_a_name_waits_whoever_asks(site: ConsoleSite, anybody: Callable[[], Browser]) -> None:
    browser = anybody()
    for _ in range(attempts.MOST_BY_NAME):
        assert browser.log_in("reader", "wrong").status_code == 403
    answer = browser.log_in("reader")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= attempts.WINDOW_S
    assert browser.log_in("operator").status_code == 303
    assert any("too many attempts" in one for one in audited(site))


def test_refused_logins_do_not_fill_the_audit_trail(
    site: ConsoleSite, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(site.accounts._refused, "_clock", lambda: now[0])

    def refused(count: int) -> None:
        for _ in range(count):
            with pytest.raises(RefusedLogin, match="Too many attempts"):
                site.accounts.log_in("nobody", "x", "10.9.9.9")

    for _ in range(attempts.MOST_BY_NAME):
        site.accounts._attempts.begin("nobody", "10.9.9.9")
    refused(200)
    site.accounts.tell_refused()  # its minute has not ended
    assert len(audited(site)) == 20
    now[0] += 61
    site.accounts.tell_refused()
    assert len(audited(site)) == 21 and "180 more logins refused" in audited(site)[-1]
    refused(30)
    site.close()
    told = [one.xml for one in catalog.audit_waiting(1000)]
    assert len(told) == 42 and "10 more logins refused" in told[-1]


def test_attempts_are_counted_by_name_and_by_address_for_a_while() -> None:
    now = [0.0]
    counted = LoginAttempts(lambda: now[0])
    assert [counted.begin("a", f"10.0.0.{n}") for n in range(attempts.MOST_BY_NAME)] == attempts.MOST_BY_NAME * [0.0]
    assert counted.begin("a", "10.0.1.1") == attempts.WINDOW_S
    now[0] = attempts.WINDOW_S
    assert counted.begin("a", "10.0.1.1") == 0.0
    assert [counted.begin(f"n{n}", "10.9.9.9") for n in range(attempts.MOST_BY_ADDRESS)][-1] == 0.0
    assert counted.begin("other", "10.9.9.9") > 0


def test_who_logs_in_again_and_again_is_not_locked_out() -> None:
    counted = LoginAttempts(lambda: 0.0)
    for _ in range(1000):
        assert counted.begin("a", "10.0.0.1") == 0.0
        counted.succeeded("a", "10.0.0.1")


def test_attempts_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MOST", 1 << 60)
    counted = LoginAttempts(lambda: 0.0)
    for number in range(30_000):
        counted.begin(f"name {number}", f"address {number}")
    assert len(counted._counts) == attempts._MOST_KEYS


def test_behind_a_proxy_its_last_word_is_the_address(site: ConsoleSite) -> None:
    def addresses(*lines: str, behind: bool = True) -> list[str]:
        site.config = site.config.model_copy(
            update={"console": site.config.console.model_copy(update={"behind_proxy": behind})}
        )
        with client(application(site), "https://127.0.0.1") as made:
            browser = Browser(made)
            browser.log_in("nobody", "wrong", headers=[("X-Forwarded-For", line) for line in lines])
        return re.findall(r'NetworkAccessPointID="([\d.]+)"', audited(site)[-1])

    assert "10.1.2.3" not in addresses("6.6.6.6, 10.1.2.3", behind=False)
    assert "10.1.2.3" in addresses("6.6.6.6, 10.1.2.3")
    assert "10.1.2.3" in addresses("6.6.6.6", "10.1.2.3")  # some proxies add a line of their own


def test_behind_https_cookies_are_this_hosts_and_secure(site: ConsoleSite) -> None:
    secure = replace_console(site, behind_proxy=True)
    with client(application(secure), "https://127.0.0.1") as made:
        answer = Browser(made).log_in("reader")
    cookies = answer.headers.get_list("set-cookie")
    assert any(one.startswith("__Host-dicomnode=") and "Secure" in one for one in cookies), cookies


def replace_console(site: ConsoleSite, **values: object) -> ConsoleSite:
    console = site.config.console.model_copy(update=values)
    site.config = site.config.model_copy(update={"console": console})
    return site


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "node.example"])
def test_passwords_do_not_cross_the_network_in_the_clear(host: str, tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text(f'[console]\nenabled = true\nhost = "{host}"\n')
    with pytest.raises(config.loading.ConfigurationError, match="in the clear"):
        config.load(path)
    path.write_text(f'[console]\nenabled = true\nhost = "{host}"\nbehind_proxy = true\n')
    assert config.load(path).console.is_secure


def test_a_password_is_kept_as_argon2id_and_is_not_short() -> None:
    usual, passwords._hasher = passwords._hasher, passwords.PasswordHasher()
    try:
        kept = passwords.hashed("a password of length")
        assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert passwords.matches(kept, "a password of length") and not passwords.matches(kept, "another")
    finally:
        passwords._hasher = usual
    assert not passwords.matches("no hash", "x") and not passwords.matches(None, "nobody's password")
    for password in ("short", "x" * 300):
        with pytest.raises(passwords.UsageError, match="give 12 to 256"):
            passwords.hashed(password)


def test_no_more_than_two_passwords_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_WAIT_S", 0.0)
    with passwords._turn, passwords._turn, pytest.raises(passwords.BusyError):
        passwords.matches(None, "x")
