"""Logging in and out."""

from starlette.responses import RedirectResponse, Response

from dicomnode.console.accounts import RefusedLogin, new_visitor
from dicomnode.console.site import ConsoleSite, Visit

#: Over plain HTTP on this machine a browser takes no cookie that is called so.
SECURE_PREFIX = "__Host-"
SESSION, VISITOR = "dicomnode", "dicomnode-login"


def cookie(site: ConsoleSite, name: str) -> str:
    """Return what a cookie is called; with the prefix a browser holds it for this host alone, by HTTPS."""
    return SECURE_PREFIX + name if site.config.console.is_secure else name


def form(site: ConsoleSite, visit: Visit) -> Response:
    """Show the login form."""
    return _form(site, visit, "", 200)


def log_in(site: ConsoleSite, visit: Visit) -> Response:
    """Begin a session, with a token that nobody had before."""
    name = visit.form.get("name", "").strip()
    try:
        token = site.accounts.log_in(name, visit.form.get("password", ""), visit.address)
    except RefusedLogin as refused:
        answer = _form(site, visit, str(refused), refused.status)
        if refused.retry_after:
            answer.headers["Retry-After"] = f"{refused.retry_after:.0f}"
        return answer
    if visit.user is not None:
        site.accounts.log_out(visit.token, visit.name, visit.address)
    answer = RedirectResponse("/", 303)
    _set(site, answer, SESSION, token)
    answer.delete_cookie(cookie(site, VISITOR), path="/", secure=site.config.console.is_secure, httponly=True)
    return answer


def log_out(site: ConsoleSite, visit: Visit) -> Response:
    """End the session."""
    site.accounts.log_out(visit.token, visit.name, visit.address)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(cookie(site, SESSION), path="/", secure=site.config.console.is_secure, httponly=True)
    return answer


def _form(site: ConsoleSite, visit: Visit, problem: str, status: int) -> Response:
    visitor = visit.visitor or new_visitor()
    answer = site.page(visit, "login.html", status, mark=site.accounts.login_mark(visitor), problem=problem)
    _set(site, answer, VISITOR, visitor)
    return answer


def _set(site: ConsoleSite, answer: Response, name: str, value: str) -> None:
    answer.set_cookie(
        cookie(site, name), value, path="/", secure=site.config.console.is_secure, httponly=True, samesite="strict"
    )
