"""Programs that use DICOMweb, known by their tokens."""

import time
from typing import Final

from dicomnode.audit import messages, trail
from dicomnode.console.attempts import LoginAttempts
from dicomnode.operations.web_tokens import token_hash
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.console import ConsoleToken

_LONGEST: Final = 200
#: A program's last request is noted no more often.
_NOTED_S: Final = 60.0


class WebTokens:
    """Knows programs by their tokens. For several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._attempts = catalog, LoginAttempts()

    def program(self, token: str) -> ConsoleToken | None:
        """Return whose token it is; None: nobody's. Raises SpoolError."""
        if not token or len(token) > _LONGEST:
            return None
        found, now = self._catalog.console_token(token_hash(token)), time.time()
        if found is not None and now - (found.used_at or 0) > _NOTED_S:
            self._catalog.see_console_token(found.name, now)
        return found

    def refused(self, address: str) -> float:
        """Note that somebody came with a token that is nobody's; returns for how many seconds he is not answered."""
        wait = self._attempts.begin(f"token from {address}"[:100], address)
        if not wait:
            why = "a token that is nobody's"
            now, outcome = time.time(), messages.MINOR
            trail.note(messages.authentication, now, "DICOMweb", address, login=True, outcome=outcome, why=why)
        return wait
