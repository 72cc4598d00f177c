"""Patient data stays out of the logs."""

import logging
import warnings

import pytest

from dicomnode import logs
from dicomnode.dimse import sender
from dicomnode.errors import PeerError
from tests.acceptance.running import free_port


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def test_the_text_of_an_unexpected_error_shows_at_debug_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(f"{'^'.join(('Doe', 'Jane'))} is no number")

    for level, shown in (("info", False), ("debug", True)):
        logs.configure(level, "worker-0")
        try:
            fail()
        except ValueError as e:
            logs.trouble(logging.getLogger("dicomnode.x"), e, "study %s failed", "1.2.3")
        text = capsys.readouterr().err
        assert "study 1.2.3 failed: ValueError" in text
        assert "in fail" in text
        assert ("Doe^Jane" in text) is shown


def test_a_peer_that_is_away_is_told_by_us_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    with pytest.raises(PeerError, match="no connection"):
        sender.echo(sender.Destination("archive", "PEER", "127.0.0.1", free_port()))
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
