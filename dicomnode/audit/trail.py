"""Where this process' audit events go. As with logging, there is one place for a process, set when it starts.

While it is not set, nothing is noted: `[audit] to = "off"`.
"""

import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from dicomnode import logs
from dicomnode.audit.messages import AuditMessage, AuditSource

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_source: AuditSource | None = None
_keep: Callable[[AuditMessage], None] | None = None


def begin(source: AuditSource | None, keep: Callable[[AuditMessage], None] | None = None) -> None:
    """Note events from now on, as reported by `source`; None ends it.

    Args:
        source: who reports.
        keep: keeps a message on the disk before it returns; None where only transactions of the catalogue note events.
    """
    global _source, _keep
    _source, _keep = source, keep


def source() -> AuditSource | None:
    """Return who reports; None where nothing is noted."""
    return _source


def note(build: Callable[Concatenate[AuditSource, _P], AuditMessage], *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Keep the message that `build` makes of its arguments: it is on the disk when this returns.

    A failure is logged, and stops nobody: images come and go even while the trail's disk is full.
    """
    if _source is None or _keep is None:
        return
    try:
        _keep(build(_source, *args, **kwargs))
    except Exception as error:  # noqa: BLE001  (whatever an event holds, the work goes on)
        logs.log_unexpected(log, error, "an audit event could not be kept")
