"""Logging in and out."""

from starlette.responses import RedirectResponse, Response

from dicomnode.console.accounts import RefusedLogin, new_visitor
from dicomnode.console.site import ConsoleSite, Visit

#: Over plain HTTP on this machine a browser takes no cookie that is called so.
SECURE_PREFIX = "__Host-"
SESSION, VISITOR = "dicomnode", "dicomnode-login"
#: Of somebody who is at the provider.
FLOW = "dicomnode-provider"


def cookie(site: ConsoleSite, name: str) -> str:
    """Return what a cookie is called; with the prefix a browser holds it for this host alone, by HTTPS."""
    return SECURE_PREFIX + name if site.config.console.is_secure else name


def form(site: ConsoleSite, visit: Visit) -> Response:
    """Show the login form."""
    return login_page(site, visit, "", 200)


def log_in(site: ConsoleSite, visit: Visit) -> Response:
    """Begin a session, with a token that nobody had before."""
    name = visit.form.get("name", "").strip()
    try:
        token = site.accounts.log_in(name, visit.form.get("password", ""), visit.address)
    except RefusedLogin as refused:
        answer = login_page(site, visit, str(refused), refused.status)
        if refused.retry_after:
            answer.headers["Retry-After"] = f"{refused.retry_after:.0f}"
        return answer
    if visit.user is not None:
        site.accounts.log_out(visit.token, visit.name, visit.address)
    answer = RedirectResponse("/", 303)
    set_cookie(site, answer, SESSION, token)
    drop_cookie(site, answer, VISITOR)
    return answer


def log_out(site: ConsoleSite, visit: Visit) -> Response:
    """End the session."""
    site.accounts.log_out(visit.token, visit.name, visit.address)
    answer = RedirectResponse("/login", 303)
    drop_cookie(site, answer, SESSION)
    return answer


def login_page(site: ConsoleSite, visit: Visit, problem: str, status: int) -> Response:
    """Return the login form, with what went wrong."""
    visitor = visit.visitor or new_visitor()
    mark, provider = site.accounts.login_mark(visitor), site.config.console.oidc
    answer = site.page(visit, "login.html", status, mark=mark, problem=problem, provider=provider)
    set_cookie(site, answer, VISITOR, visitor)
    return answer


def set_cookie(site: ConsoleSite, answer: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Give a browser a cookie; for so many seconds it is sent when another site leads here too."""
    answer.set_cookie(
        cookie(site, name),
        value,
        max_age=seconds,
        path="/",
        secure=site.config.console.is_secure,
        httponly=True,
        samesite="strict" if seconds is None else "lax",
    )


def drop_cookie(site: ConsoleSite, answer: Response, name: str) -> None:
    """Take a cookie away."""
    answer.delete_cookie(cookie(site, name), path="/", secure=site.config.console.is_secure, httponly=True)
