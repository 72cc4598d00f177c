"""What a person does by a command or in the console, for the audit trail."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar

from dicomnode.audit import messages, trail
from dicomnode.audit.messages import AuditMessage, AuditStudy, os_user
from dicomnode.config import Config
from dicomnode.files import make_folder
from dicomnode.store.catalog.catalog import Catalog

#: Who acts by way of the console, in this thread; "": the operating system's user, by a command.
_acting: ContextVar[str] = ContextVar("acting", default="")


@contextmanager
def acting(user: str) -> Iterator[None]:
    """Note what is done meanwhile as done by this user of the console."""
    before = _acting.set(user)
    try:
        yield
    finally:
        _acting.reset(before)


def who() -> str:
    """Return who acts: a user of the console, else the operating system's."""
    user = _acting.get()
    return f"{user} (console)" if user else os_user()


@contextmanager
def noted(config: Config, catalog: Catalog) -> Iterator[None]:
    """Keep in this catalogue what the parts of the node note for the audit trail meanwhile."""
    trail.begin(config.audit.source(config.node.ae_title), catalog.audit)
    try:
        yield
    finally:
        trail.begin(None)


def note_command(
    config: Config,
    command: str,
    details: Mapping[str, str] | None = None,
    study_uid: str = "",
    *,
    catalog: Catalog | None = None,
) -> None:
    """Note a command that changes something, before it does: a Security Alert, Use of Restricted Function.

    `catalog` is the one to note it in, where it is open already.

    Raises:
        SpoolError: the catalogue failed; the command is not carried out.
    """
    source = config.audit.source(config.node.ae_title)
    if source is None:
        return
    kind = messages.SOFTWARE_CONFIGURATION if command.startswith("weights") else messages.RESTRICTED
    study = AuditStudy(study_uid) if study_uid else None
    what = f"dicomnode {command}"
    message = messages.alert(source, time.time(), kind, what, details or {}, user=who(), study=study)
    if catalog is None:
        _keep(config, message)
    else:
        catalog.audit(message)


def note_export(config: Config, target: str, details: Mapping[str, str]) -> None:
    """Note that the registry is exported to a folder.

    Raises:
        SpoolError: the catalogue failed; nothing is exported.
    """
    source = config.audit.source(config.node.ae_title)
    if source is not None:
        _keep(config, messages.export(source, time.time(), who(), target, details))


def _keep(config: Config, message: AuditMessage) -> None:
    if not config.storage.database_url:
        make_folder(config.storage.state)
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog:
        catalog.audit(message)
