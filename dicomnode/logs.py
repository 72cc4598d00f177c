"""Logging to standard error: one line an event, UTC. Patient data may show at debug level only."""

import logging
import sys
import time
import traceback


def configure(level: str, process: str) -> None:
    """Set up logging for this process. `process` names it in each line (receiver, worker-0, …)."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if root.level > logging.DEBUG:
        # pynetdicom, pydicom and the scheduler log whole messages and values: those of ours say what a person needs.
        for name in (
            "pynetdicom",
            "pydicom",
            "highdicom",
            "apscheduler",
            "dbos",
            "radiomics",
            "matplotlib",
            "PIL",
            "httpx",
        ):
            logging.getLogger(name).setLevel(logging.WARNING)
        # What cannot be reached is told by the one who wanted to reach it; alembic lists its own plugins.
        logging.getLogger("pynetdicom.transport").setLevel(logging.CRITICAL)
        logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
        # pydicom's warnings quote the values they complain of, and those can be a patient's name.
        logging.getLogger("pydicom").setLevel(logging.ERROR)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def trouble(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log an unexpected error: where it came from at error level, its text at debug level only.

    The text of somebody else's exception may quote what it was given, a patient's name for instance.
    """
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error(f"{message}: {type(error).__name__}; at\n{where}", *args)
    log.debug("its text: %s", error)
