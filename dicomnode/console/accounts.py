"""Logging in and out, and who a request comes from. Sessions are the server's; a browser holds a random token."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Final

from dicomnode.audit import messages, trail
from dicomnode.audit.journal import Refusals
from dicomnode.config import ConsoleTable
from dicomnode.console.attempts import LoginAttempts
from dicomnode.console.roles import ROLES, Role
from dicomnode.operations import passwords
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.words.numerals import plural

_TOKEN_BYTES = 32
#: A session's last use is noted no more often.
_NOTED_S = 60.0
LONGEST_NAME: Final = 64


@dataclass(frozen=True)
class LoggedIn:
    """Who a request comes from. `csrf`: what each of his forms has to bring."""

    name: str
    role: Role
    csrf: str


class RefusedLogin(Exception):  # noqa: N818  (no fault of ours)
    """Nobody is logged in. `status`: of HTTP; `retry_after`: seconds, where it may be tried later."""

    def __init__(self, text: str, status: int, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Accounts:
    """Users and sessions of a node's console. For several threads."""

    def __init__(self, table: ConsoleTable, catalog: Catalog, attempts: LoginAttempts) -> None:
        self._table, self._catalog, self._attempts = table, catalog, attempts
        #: Marks the login form of one browser; a restart makes those that stand open void.
        self._secret = secrets.token_bytes(_TOKEN_BYTES)
        #: Whoever may not even try needs no password, so their number is not bounded by `attempts`. Those of the last
        #: minute that were only counted end with a process that is killed.
        self._refused = Refusals(lambda _count: None)

    def log_in(self, name: str, password: str, address: str) -> str:
        """Begin a session; returns its token.

        Raises:
            RefusedLogin: name or password is wrong, or too much was tried.
            SpoolError: the catalogue failed.
        """
        name = name[:LONGEST_NAME]
        if not self._takes_local:
            raise RefusedLogin("Users of this node's own are switched off.", 403)
        self._begin(name, address)
        user = self._catalog.console_user(name)
        try:
            is_right = passwords.matches(None if user is None else user.password, password)
        except passwords.BusyError:
            raise RefusedLogin("Too many people are logging in. Try again.", 503, 10.0) from None
        if not is_right or user is None or user.role not in ROLES:
            self._tell(name, address, "wrong name or password")
            raise RefusedLogin("Wrong name or password.", 403)
        self._attempts.succeeded(name, address)
        return self._begun(name, address)

    def begin_by_provider(self, address: str) -> None:
        """Count that somebody comes back from the provider, before that is judged. Raises RefusedLogin: too often."""
        self._begin(_by_provider(address), address)

    def log_in_by_provider(self, name: str, role: Role, issuer: str, address: str) -> str:
        """Begin a session of the provider's user; returns its token.

        Raises:
            RefusedLogin: one of this node's own users is called so.
            SpoolError: the catalogue failed.
        """
        if self._takes_local and self._catalog.console_user(name) is not None:
            self.refuse_by_provider(name, address, "a local user is called so")
            text = f"{name} is also one of this node's own users: one of them has to be removed, or called otherwise."
            raise RefusedLogin(text, 403)
        self._attempts.succeeded(_by_provider(address), address)
        return self._begun(name, address, issuer, role)

    def refuse_by_provider(self, name: str, address: str, why: str) -> None:
        """Note that a login by the provider was refused."""
        self._tell(name, address, why)

    def _begin(self, name: str, address: str) -> None:
        if wait := self._attempts.begin(name, address):
            if self._refused.is_told():
                self._tell(name, address, "too many attempts")
            raise RefusedLogin(f"Too many attempts. Try again in {plural(round(wait / 60), 'minute')}.", 429, wait)

    def _begun(self, name: str, address: str, issuer: str = "", role: str = "") -> str:
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), time.time()
        self._catalog.begin_console_session(_hash(token), name, now, self._ended_before(now), issuer, role)
        trail.note(messages.authentication, now, name, address, login=True)
        return token

    def tell_refused(self, *, at_once: bool = False) -> None:
        """Note how many logins were refused beyond those that are noted one by one: of each minute, or `at_once`."""
        self._refused.tell_others(
            lambda n: self._tell("various", "", f"{plural(n, 'more login')} refused"), at_once=at_once
        )

    def _tell(self, name: str, address: str, why: str) -> None:
        trail.note(messages.authentication, time.time(), name, address, login=True, outcome=messages.MINOR, why=why)

    def log_out(self, token: str, name: str, address: str) -> None:
        """End a session. Raises SpoolError."""
        self._catalog.end_console_session(_hash(token))
        trail.note(messages.authentication, time.time(), name, address, login=False)

    def who(self, token: str, *, uses: bool) -> LoggedIn | None:
        """Return who holds this token; None where the session has ended.

        Args:
            token: the browser's.
            uses: whether the session is used by it; not by a page that looks for news by itself.

        Raises:
            SpoolError: the catalogue failed.
        """
        if not token or len(token) > 2 * _TOKEN_BYTES:
            return None
        session, now = self._catalog.console_session(_hash(token)), time.time()
        began, seen = self._ended_before(now)
        if session is None or session.role not in ROLES or not self._takes(session.issuer):
            return None
        if session.began_at < began or session.seen_at < seen:
            self._catalog.end_console_session(_hash(token))
            return None
        if uses and now - session.seen_at > _NOTED_S:
            self._catalog.see_console_session(_hash(token), now)
        return LoggedIn(session.name, session.role, _mark(token.encode(), "csrf"))

    @property
    def _takes_local(self) -> bool:
        return self._table.oidc is None or self._table.oidc.local_users

    def _takes(self, issuer: str) -> bool:
        """Whether the configuration, which may have changed since a login, lets such users in."""
        if not issuer:
            return self._takes_local
        return self._table.oidc is not None and self._table.oidc.issuer == issuer

    def login_mark(self, visitor: str) -> str:
        """Return what the login form has to bring that was given to the browser which holds `visitor`."""
        return _mark(self._secret, f"login {visitor}")

    def _ended_before(self, now: float) -> tuple[float, float]:
        return now - 3600 * self._table.session_hours, now - 60 * self._table.idle_minutes


def new_visitor() -> str:
    """Return a token for a browser in which nobody is logged in."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def same(given: str, expected: str) -> bool:
    """Compare two secrets in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _by_provider(address: str) -> str:
    """Return under what attempts are counted: who comes back has no name yet."""
    return f"provider from {address}"[:LONGEST_NAME]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _mark(key: bytes, use: str) -> str:
    return hmac.new(key, use.encode(), hashlib.sha256).hexdigest()
