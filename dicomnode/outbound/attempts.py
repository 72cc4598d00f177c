"""How an attempt to deliver an object ended, written down."""

import time

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Delivery, DeliveryState


def mark(catalog: Catalog, d: Delivery, state: DeliveryState, *, status: int | None = None, text: str) -> None:
    """Note one more attempt: how it left the delivery, the peer's status if it gave one, and words."""
    catalog.mark_delivery(
        d.study_uid,
        d.generation,
        d.destination,
        d.object,
        state,
        status=status,
        text=text,
        attempts=d.attempts + 1,
        now=time.time(),
    )
