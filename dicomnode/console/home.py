"""The first page. Nothing on it says whose a study is: it may hang on a wall."""

from starlette.responses import RedirectResponse, Response

from dicomnode.console.site import ConsoleSite, Visit


def home(site: ConsoleSite, visit: Visit) -> Response:
    """Show the first page; to a researcher the list of studies."""
    if not visit.identifies:
        return RedirectResponse("/studies", 303)
    return site.page(visit, "home.html", glance=site.now.found(), keys=site.keys)


def now(site: ConsoleSite, visit: Visit) -> Response:
    """Return the part of the first page that changes."""
    return site.page(visit, "now.html", glance=site.now.found(), keys=site.keys)
