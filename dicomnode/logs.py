"""Logging to standard error: one line an event, UTC. Patient data may show at debug level only."""

import logging
import sys
import time
import traceback
from types import TracebackType

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _WithoutTexts(logging.Formatter):
    """Where an exception came from, without its text: somebody else's may quote what it was given."""

    def formatException(self, ei: _Raised) -> str:  # noqa: N802  (logging's name)
        where = "".join(traceback.format_tb(ei[2]))
        return f"{where}{ei[0].__name__}" if ei[0] is not None else where


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    # `dicomnode jobs cancel` ends a workflow so: what a person wanted is no error.
    raised = record.exc_info[0] if record.exc_info else None
    return raised is None or raised.__name__ != "DBOSAwaitedWorkflowCancelledError"


def configure(level: str, process: str) -> None:
    """Set up logging for this process. `process` names it in each line (receiver, worker-0, …)."""
    handler = logging.StreamHandler(sys.stderr)
    quiet = level != "debug"
    formatter = (_WithoutTexts if quiet else logging.Formatter)(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It would bring a handler of its own, with another format.
    engine = logging.getLogger("dbos")
    engine.handlers[:], engine.propagate = [handler], False
    if quiet:
        engine.filters[:] = [_is_no_cancellation]
        # pynetdicom, pydicom and the scheduler log whole messages and values: those of ours say what a person needs.
        for name in (
            "pydicom",
            "highdicom",
            "alembic.runtime.plugins",
            "dbos",
            "radiomics",
            "matplotlib",
            "PIL",
            "httpx",
        ):
            logging.getLogger(name).setLevel(logging.WARNING)
        # A tick that is late is skipped: the next one finds the same state.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        # An unreachable peer is reported once, with its name, by the code that called it.
        logging.getLogger("pynetdicom.transport").setLevel(logging.CRITICAL)
        # What it cannot decode it quotes, and a name sent as a UID is a patient's: `network` says what it was.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        # pydicom's warnings quote the values they complain of, and those can be a patient's name.
        logging.getLogger("pydicom").setLevel(logging.ERROR)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def log_unexpected(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log an unexpected error: where it came from at error level, its text at debug level only.

    The text of somebody else's exception may quote what it was given, a patient's name for instance.
    """
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error(f"{message}: {type(error).__name__}; at\n{where}", *args)
    log.debug("error text: %s", error)
