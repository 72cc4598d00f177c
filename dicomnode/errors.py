"""The tree of errors. Each class knows the exit code of the command line and whether retrying may help.

The message says what was wrong, with the value, and what to do. It never holds patient data: messages end in logs.

The workflow engine keeps the error of a step that failed by the name of its class (`workflows.serializer`): these keep
their names and their module, or what is queued cannot be taken up again.
"""

from typing import ClassVar


class DicomnodeError(Exception):
    """Something went wrong in dicomnode."""

    exit_code: ClassVar[int] = 1
    may_retry: ClassVar[bool] = False


class UsageError(DicomnodeError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class ConfigurationError(DicomnodeError):
    """The configuration is wrong. The message names key, value and cure."""

    exit_code = 2


class RefusedError(DicomnodeError):
    """The input is not suitable for analysis.

    `code` is a short, stable word for scripts (it becomes the reason's code in `findings.json`).
    """

    exit_code = 3

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[str, str]]:
        return type(self), (self.code, self.text)


class GateError(DicomnodeError):
    """A run's bundle has not passed the gate: it may not serve."""

    exit_code = 3


class BundleError(DicomnodeError):
    """A model bundle is missing, damaged, not allowed here, or does not reproduce its golden case."""

    exit_code = 4


class WeightsError(DicomnodeError):
    """Segmentation weights are missing or not the file that was expected."""

    exit_code = 4


class SpoolError(DicomnodeError):
    """The spool or its catalogue failed."""

    exit_code = 5
    may_retry = True


class DatabaseError(SpoolError):
    """The database did not answer or the connection was lost: the same call may succeed later."""


class PeerError(DicomnodeError):
    """A peer could not be reached or failed temporarily: retrying may help."""

    exit_code = 6
    may_retry = True


class PeerRejectedError(DicomnodeError):
    """A peer refused permanently (AE title not recognised, SOP class not supported): retrying will not help."""

    exit_code = 6


class AssociationRejectedError(PeerRejectedError):
    """A peer refused an association permanently, and with it all objects to be sent on it."""
