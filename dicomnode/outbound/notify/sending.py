"""One message to one receiver, now."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pydicom

from dicomnode.config import Config, NotifyTable
from dicomnode.network.matching import text
from dicomnode.outbound.notify import mail, webhook
from dicomnode.outbound.notify.message import message
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Event

_A_TEST = "This is a test of dicomnode's notifications: nothing has happened. A real message would read:"


def send(config: Config, to: NotifyTable, event: Event, catalog: Catalog | None, *, is_test: bool = False) -> None:
    """Send one message now. Without a catalogue, patient data stays empty. Raises as `mail.send` and `webhook.send`.

    `is_test`: the message says so in its subject, its text and its fields.
    """
    patient = _patient(to, event, catalog)
    told = message(event, to, config.node.ae_title, patient)
    if is_test:
        text, fields = f"{_A_TEST}\n\n{told.text}", {**told.fields, "test": "true"}
        told = replace(told, subject=f"TEST: {told.subject}", text=text, fields=fields)
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
            return {name: text(header, name) for name in empty}
        except Exception:  # noqa: BLE001  (whatever a damaged header provokes: the event is worth more than the name)
            return empty
