"""Who may do what: a role is given to a user, and every route names the roles that may use it (`routes`)."""

from typing import Final, Literal, get_args

Role = Literal["reader", "operator", "administrator", "researcher"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

NOBODY: Final[frozenset[Role]] = frozenset()
#: Whoever is logged in. A researcher sees pseudonyms only: the pages see to that.
ALL: Final[frozenset[Role]] = frozenset(ROLES)
#: Who may see whose a study is.
READERS: Final[frozenset[Role]] = frozenset(("reader", "operator", "administrator"))
OPERATORS: Final[frozenset[Role]] = frozenset(("operator", "administrator"))
ADMINISTRATORS: Final[frozenset[Role]] = frozenset(("administrator",))
