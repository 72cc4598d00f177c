"""Every route of the console with the roles that may use it: the one place that says so. A test walks it."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from dicomnode.config.console import LOGIN_BACK
from dicomnode.console import (
    actions,
    home,
    logins,
    model_page,
    peers_page,
    provider_logins,
    rules_page,
    settings_page,
    slices,
    studies,
    study,
    worklist_page,
)
from dicomnode.console.roles import ADMINISTRATORS, ALL, NOBODY, OPERATORS, READERS, Role
from dicomnode.console.site import ConsoleSite, Visit


@dataclass(frozen=True)
class ConsoleRoute:
    """A page, or what a form does.

    Attributes:
        roles: who may use it. Nobody: it is public, and only the login is.
        uses: whether a session is used by it; not by what a page asks for by itself.
    """

    method: str
    path: str
    roles: frozenset[Role]
    page: Callable[[ConsoleSite, Visit], Response]
    uses: bool = True

    @property
    def is_public(self) -> bool:
        """Whether it is for those who are not logged in."""
        return not self.roles


ROUTES: tuple[ConsoleRoute, ...] = (
    ConsoleRoute("GET", "/login", NOBODY, logins.form),
    ConsoleRoute("POST", "/login", NOBODY, logins.log_in),
    ConsoleRoute("GET", "/login/provider", NOBODY, provider_logins.begin),
    ConsoleRoute("GET", LOGIN_BACK, NOBODY, provider_logins.back),
    ConsoleRoute("POST", "/logout", ALL, logins.log_out),
    ConsoleRoute("GET", "/", ALL, home.home),
    ConsoleRoute("GET", "/now", READERS, home.now, uses=False),
    ConsoleRoute("GET", "/studies", ALL, studies.listed),
    ConsoleRoute("POST", "/studies", ALL, studies.found),
    ConsoleRoute("GET", "/study/{study}", ALL, study.study),
    ConsoleRoute("GET", "/study/{study}/slices", READERS, slices.listed),
    ConsoleRoute("GET", "/study/{study}/slice/{plane}/{kind}/{number}", READERS, slices.shown),
    ConsoleRoute("GET", "/study/{study}/{action}", OPERATORS, actions.confirm),
    ConsoleRoute("POST", "/study/{study}/{action}", OPERATORS, actions.act),
    ConsoleRoute("GET", "/worklist", READERS, worklist_page.worklist),
    ConsoleRoute("GET", "/model", ALL, model_page.model),
    ConsoleRoute("GET", "/peers", OPERATORS, peers_page.peers),
    ConsoleRoute("POST", "/peers/{number}", OPERATORS, peers_page.ask),
    ConsoleRoute("GET", "/rules", OPERATORS, rules_page.rules),
    ConsoleRoute("POST", "/rules", OPERATORS, rules_page.tried),
    ConsoleRoute("GET", "/rules/{study}", OPERATORS, rules_page.of_study),
    ConsoleRoute("GET", "/configuration", ADMINISTRATORS, settings_page.configuration),
)
