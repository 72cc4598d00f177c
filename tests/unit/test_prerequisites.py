"""A campaign or benchmark whose data or peers are missing says so at once, with the cure, and begins nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import catalog, receive, run
from tests.faults import campaign
from tests.helpers import prerequisites


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (campaign.main, ["--kills", "300"]),
        (campaign.main, ["--database", "sqlite"]),
        (receive.main, []),
        (lambda: run.main([]), []),
    ],
    ids=["campaign", "campaign on sqlite", "receive", "run"],
)
def test_missing_data_is_told_at_once(
    main: Callable[[], object],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DICOMNODE_TEST_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr("sys.argv", ["main", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert f"no test data at {tmp_path / 'nowhere'}: set DICOMNODE_TEST_DATA" in capsys.readouterr().err


@pytest.mark.parametrize("main", [campaign.main, catalog.main])
def test_a_missing_peer_is_told_at_once(
    main: Callable[[], object],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(prerequisites, "_SYSTEM", ())
    monkeypatch.setattr("sys.argv", ["main"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "initdb is not installed: apt-get install postgresql" in capsys.readouterr().err


def test_a_folder_without_the_scan_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_TEST_DATA", str(tmp_path))
    with pytest.raises(prerequisites.MissingError, match="that holds chest_x"):
        prerequisites.dicom_files("chest_x")
