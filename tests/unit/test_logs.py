"""Patient data stays out of the logs."""

import logging
import warnings

import pytest

from dicomnode import logs
from dicomnode.errors import PeerError
from dicomnode.network import association
from tests.helpers.ports import free_port


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    engine = logging.getLogger("dbos")
    before = (root.handlers[:], root.level, engine.handlers[:], engine.filters[:], engine.propagate)
    yield
    root.handlers[:], root.level, engine.handlers[:], engine.filters[:], engine.propagate = before
    logging.captureWarnings(False)


def test_the_text_of_an_unexpected_error_shows_at_debug_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(f"{'^'.join(('Doe', 'Jane'))} is no number")

    for level, shown in (("info", False), ("debug", True)):
        logs.configure(level, "worker-0")
        try:
            fail()
        except ValueError as e:
            logs.log_unexpected(logging.getLogger("dicomnode.x"), e, "study %s failed", "1.2.3")
        text = capsys.readouterr().err
        assert "study 1.2.3 failed: ValueError" in text
        assert "in fail" in text
        assert ("Doe^Jane" in text) is shown


def test_a_peer_that_is_away_is_told_by_us_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    with pytest.raises(PeerError, match="no connection"):
        association.echo(association.Peer("archive", "PEER", "127.0.0.1", free_port()))
    assert capsys.readouterr().err == ""


def test_warnings_of_libraries_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", UserWarning, stacklevel=1)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'Doe^Jane'")
    logging.getLogger("dicomnode").info("ready")
    text = capsys.readouterr().err
    assert "Doe" not in text
    assert "Z INFO    worker-0 dicomnode: ready" in text


def test_exceptions_that_libraries_log_come_without_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    def log_one(level: str) -> str:
        logs.configure(level, "worker-0")
        try:
            raise ValueError(f"{'^'.join(('Doe', 'Jane'))} is no number")
        except ValueError:
            logging.getLogger("dbos").error("Exception encountered in background workflow:", exc_info=True)
        return capsys.readouterr().err

    quiet = log_one("info")
    assert "ERROR   worker-0 dbos: Exception encountered" in quiet
    assert "in log_one" in quiet
    assert "ValueError" in quiet
    assert "Doe^Jane" not in quiet
    assert "Doe^Jane" in log_one("debug")


def test_a_cancelled_workflow_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    from dbos._error import DBOSAwaitedWorkflowCancelledError

    logs.configure("info", "worker-0")
    for error in (DBOSAwaitedWorkflowCancelledError("study/1.2/1/1"), ValueError("x")):
        logging.getLogger("dbos").error("Exception encountered in background workflow:", exc_info=error)
    text = capsys.readouterr().err
    assert "Cancelled" not in text
    assert text.count("Exception encountered") == 1
