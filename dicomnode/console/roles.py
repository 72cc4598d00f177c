"""Who may do what: a role is given to a user, and every route names the roles that may use it (`routes`)."""

from collections.abc import Iterable
from typing import Final

from dicomnode.config.console import ROLES, Role

__all__ = ["ADMINISTRATORS", "ALL", "NOBODY", "OPERATORS", "READERS", "ROLES", "Role", "widest"]

NOBODY: Final[frozenset[Role]] = frozenset()
#: Whoever is logged in. A researcher sees pseudonyms only: the pages see to that.
ALL: Final[frozenset[Role]] = frozenset(ROLES)
#: Who may see whose a study is.
READERS: Final[frozenset[Role]] = frozenset(("reader", "operator", "administrator"))
OPERATORS: Final[frozenset[Role]] = frozenset(("operator", "administrator"))
ADMINISTRATORS: Final[frozenset[Role]] = frozenset(("administrator",))

#: Of somebody who has several, the one that may most counts; that of a researcher shows least.
_WIDEST: Final[tuple[Role, ...]] = ("administrator", "operator", "reader", "researcher")


def widest(roles: Iterable[Role]) -> Role | None:
    """Return the role that may most; None where there is none."""
    return min(roles, key=_WIDEST.index, default=None)
