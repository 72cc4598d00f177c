"""The candidate in the shadow beside the served bundle, as the model's page shows it."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from dicomnode.operations.looking import Pages
from dicomnode.registry import shadow
from dicomnode.registry.shadow import ShadowRow

#: Every risk of the registry is read for the comparison: all who look see the same for so long.
_FRESH_S: Final = 300.0


class ShadowComparison:
    """What the candidate said beside the served bundle, looked up once for all who look."""

    def __init__(self) -> None:
        self._lock, self._at = threading.Lock(), 0.0
        self._found: Sequence[ShadowRow] | None = None

    def rows(self, pages: Pages) -> Sequence[ShadowRow]:
        """Return the comparison as it is, or was some minutes ago. Raises SpoolError."""
        with self._lock:
            now = time.monotonic()
            if self._found is None or now - self._at > _FRESH_S:
                self._found, self._at = shadow.compare(pages.catalog.registry_risks()), now
            return self._found
