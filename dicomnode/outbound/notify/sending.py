"""One message to one receiver, now."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pydicom

from dicomnode.config import Config, NotifyTable
from dicomnode.outbound.notify import mail, webhook
from dicomnode.outbound.notify.message import message
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Event


def send(config: Config, to: NotifyTable, event: Event, catalog: Catalog | None) -> None:
    """Send one message now. Without a catalogue, patient data stays empty. Raises as `mail.send` and `webhook.send`."""
    patient = _patient(to, event, catalog)
    told = message(event, to, config.node.ae_title, patient)
    if to.kind == "email":
        mail.send(to, told)
    else:
        webhook.send(to, told)


def find(config: Config, name: str) -> NotifyTable | None:
    """Return the receiver of notifications of this name."""
    return next((n for n in config.notify if n.name == name), None)


def _patient(to: NotifyTable, event: Event, catalog: Catalog | None) -> Mapping[str, str]:
    """Return what the texts name of the study's images, from one of them.

    "" where that is absent, or the images have left.
    """
    empty = dict.fromkeys(to.patient_names, "")
    images = catalog.instances(event.study_uid) if catalog is not None and empty and event.study_uid else []
    if not images:
        return empty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes odd values, and these are a patient's
        try:
            header = pydicom.dcmread(Path(images[0].path), stop_before_pixels=True, specific_tags=sorted(empty))
            return {name: str(header.get(name) or "") for name in empty}
        except Exception:  # noqa: BLE001  (whatever a damaged header provokes: the event is worth more than the name)
            return empty
