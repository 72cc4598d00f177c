"""Logging in by the site's OpenID provider (`network/openid`).

What a login has to remember while its user is at the provider is sealed in a cookie of his browser: nobody makes this
process remember anything. The cookie is `Lax`, since the browser comes back from another site; the session's is
`Strict`, so that who has come back is shown a page of ours first, which goes on to the first page.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken
from starlette.responses import RedirectResponse, Response

from dicomnode.config.console import OidcTable
from dicomnode.console.accounts import LONGEST_NAME, RefusedLogin, same
from dicomnode.console.logins import FLOW, SESSION, drop_cookie, login_page, set_cookie
from dicomnode.console.roles import Role, widest
from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.openid import Begun, claim

log = logging.getLogger(__name__)

#: A person types a password in less.
FLOW_S: Final = 600
#: Whose login was refused before he had a name.
_NOBODY = "unknown (provider)"
_LONGEST_CODE = 4096
#: Groups of one user that are looked at.
_MOST_GROUPS = 5000
_SEAL = Fernet(Fernet.generate_key())  # a restart makes the logins void that stand open


def begin(site: ConsoleSite, visit: Visit) -> Response:
    """Send the browser to the provider."""
    table, client = _configured(site), site.provider
    assert client is not None
    begun = Begun(*(secrets.token_urlsafe(32) for _ in range(3)))
    try:
        url = client.login_url(begun)
    except (PeerError, PeerRejectedError) as error:
        log.warning("no login by the provider: %s", error)
        return login_page(site, visit, f"{_name(table)} cannot be asked now. Try again later.", 503)
    answer = RedirectResponse(url, 303)
    set_cookie(site, answer, FLOW, _SEAL.encrypt(json.dumps(asdict(begun)).encode()).decode("ascii"), FLOW_S)
    return answer


def back(site: ConsoleSite, visit: Visit) -> Response:
    """Judge who comes back from the provider, and begin a session."""
    table = _configured(site)
    try:
        site.accounts.begin_by_provider(visit.address)
        claims = _claims(site, table, visit)
        name = _user_name(table, claims)
        role = _role(table, claims)
        if role is None:
            site.accounts.refuse_by_provider(name or _NOBODY, visit.address, "no role here")
            text = f"{name or 'Your account'} has no role on this node. Who runs it can give you one."
            raise RefusedLogin(text, 403)  # noqa: TRY301
        if not name:
            raise _refused(site, visit, f"the provider says no usable name ({table.name_claim})", 403)
        token = site.accounts.log_in_by_provider(name, role, table.issuer, visit.address)
    except RefusedLogin as refused:
        answer = site.page(visit, "error.html", refused.status, title="You are not logged in", text=str(refused))
        if refused.retry_after:
            answer.headers["Retry-After"] = f"{refused.retry_after:.0f}"
    else:
        answer = site.page(visit, "welcome.html", name=name)
        set_cookie(site, answer, SESSION, token)
    drop_cookie(site, answer, FLOW)
    return answer


def _configured(site: ConsoleSite) -> OidcTable:
    table = site.config.console.oidc
    if table is None:
        raise NotThereError
    return table


def _claims(site: ConsoleSite, table: OidcTable, visit: Visit) -> Mapping[str, Any]:
    """Return what the provider says of who comes back. Raises RefusedLogin."""
    assert site.provider is not None
    begun, given = _opened(visit.flow), visit.query
    if begun is None or not same(given.get("state", ""), begun.state):
        raise _refused(site, visit, "the login is too old, or began in another browser: log in again", 400)
    if "error" in given:
        raise _refused(site, visit, f"{_name(table)} did not let you in", 403)
    code = given.get("code", "")
    if not 0 < len(code) <= _LONGEST_CODE:
        raise _refused(site, visit, f"{_name(table)} has sent no code", 400)
    try:
        return site.provider.claims(code, begun, given.get("iss"), (table.role_claim, table.name_claim))
    except PeerError as error:
        log.warning("no login by the provider: %s", error)
        raise _refused(site, visit, f"{_name(table)} cannot be asked now: try again later", 503) from None
    except PeerRejectedError as error:
        log.warning("a login by the provider was refused: %s", error)
        raise _refused(site, visit, f"{_name(table)}: {error}", 403) from None


def _refused(site: ConsoleSite, visit: Visit, why: str, status: int) -> RefusedLogin:
    site.accounts.refuse_by_provider(_NOBODY, visit.address, why)
    return RefusedLogin(f"{why[:1].upper()}{why[1:]}.", status)


def _opened(sealed: str) -> Begun | None:
    try:
        return Begun(**json.loads(_SEAL.decrypt(sealed.encode(), ttl=FLOW_S)))
    except InvalidToken:
        return None


def _name(table: OidcTable) -> str:
    return f"«{table.label}»"


def _user_name(table: OidcTable, claims: Mapping[str, Any]) -> str:
    """Return the user's name; "" where the provider says none that can stand in a page and in the audit trail."""
    name = claim(claims, table.name_claim)
    if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
        return ""
    return name.strip()


def _role(table: OidcTable, claims: Mapping[str, Any]) -> Role | None:
    """Return the widest role of the groups that the provider names; None where there is none."""
    given = claim(claims, table.role_claim)
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list):
        return None
    groups = {one for one in given[:_MOST_GROUPS] if isinstance(one, str)}
    if table.allowed_groups and groups.isdisjoint(table.allowed_groups):
        return None
    return widest(role for group, role in table.roles.items() if group in groups)
