"""The scheduled retraining: by cron's words, one at a time, never without settings, scans and outcomes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.operations.checks import _retraining
from dicomnode.registry.retraining import Retraining, check_settings, retrain, trigger
from dicomnode.store.catalog.catalog import Catalog
from tests.conftest import ROOT
from tests.helpers.registry_node import Node, analysis
from tests.helpers.waiting import until


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    yield opened
    opened.close()


def test_the_schedule_is_that_of_cron_in_utc() -> None:
    sunday = trigger("0 2 * * sun").get_next_fire_time(None, datetime(2026, 11, 23, tzinfo=UTC))
    assert sunday == datetime(2026, 11, 29, 2, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match=r"registry\.monitor = 'daily'"):
        trigger("daily", "registry.monitor")
    with pytest.raises(ConfigurationError, match=r"retraining\.schedule = 'weekly'"):
        trigger("weekly")


def test_without_settings_or_scans_nothing_begins(tmp_path: Path, catalog: Catalog) -> None:
    settings = config.parse({}, tmp_path / "ae_config.toml")
    with pytest.raises(UsageError, match="write the settings"):
        retrain(settings, catalog)
    (tmp_path / "training.toml").write_text("")
    with pytest.raises(UsageError, match="has no scans"):
        retrain(settings, catalog)


def test_one_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    retraining = Retraining(tmp_path / "ae_config.toml")
    retraining._command = [sys.executable, "-c", "import signal; signal.pause()"]
    assert retraining.begin()
    assert not retraining.begin()
    assert "still running" in caplog.text
    retraining.stop()
    assert retraining.begin()
    retraining.stop()


#: Says that it is at work by the lock that it holds, until it is ended.
AT_WORK = """
import fcntl, os, signal, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
if {stubborn}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
file.write(str(os.getpid()).encode())
file.flush()
while True:
    signal.pause()
"""
STARTS_ANOTHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"


def is_free(path: Path) -> bool:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def is_at_work(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_end_reaches_what_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    monkeypatch.setattr("dicomnode.registry.background._PATIENCE_S", 0.5)
    mark = tmp_path / "mark"
    retraining = Retraining(tmp_path / "ae_config.toml")
    retraining._command = [sys.executable, "-c", STARTS_ANOTHER, AT_WORK.format(stubborn=stubborn), str(mark)]
    assert retraining.begin()
    until("at work", lambda: is_at_work(mark))
    retraining.stop()
    until("the last has ended", lambda: is_free(mark), 10)


ANSWERS = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else sys.argv[2])
folder.mkdir(exist_ok=True)
pathlib.Path("asked").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
checks = [{{"name": "calibration slope", "passed": True, "text": "fine"}},
          {{"name": "discrimination", "passed": {passed}, "text": "AUC lower by 0.05"}}]
(folder / "gate.json").write_text(json.dumps({{"passed": {passed}, "checks": checks}}))
sys.exit(0 if {passed} or sys.argv[1] == "run" else 3)
"""


@pytest.mark.parametrize("passed", [True, False])
def test_the_gate_decides_what_is_said(prepared: Path, passed: bool) -> None:
    """Status 3 and the reasons where it refused; `promote` is offered only where it passed."""
    (prepared.parent / "training" / "__main__.py").write_text(ANSWERS.format(passed=passed))
    command = [sys.executable, "-m", "dicomnode", "registry", "retrain", "--config", str(prepared)]
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=prepared.parent, env=where, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == (0 if passed else 3), done.stderr
    assert ("training promote" in done.stdout) is passed
    assert ("discrimination: AUC lower by 0.05" in done.stderr) is not passed and "calibration" not in done.stderr
    run, compare = (json.loads(line) for line in (prepared.parent / "asked").read_text().splitlines())
    assert run[:2] == ["run", str(prepared.with_name("training.toml"))]
    assert [Path(run[i + 1]).name for i in (2, 4, 6)] == ["registry", "outcomes.csv", "run"]
    assert compare[-2:] == ["--weights", str(prepared.parent / "weights")]


FITS = "[features]\nradiomics = false\n[splits]\nouter = 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FITS, ""),
        ("", r"features\.radiomics = true, and an export will hold none: set analysis\.radiomics = true"),
        (FITS + "folds = 5", r"splits\.folds: unknown key"),
        ('arms = ["resnet20"]\n' + FITS, "'resnet20' is unknown"),
        ('covariates = "lung.csv"\n' + FITS, r"covariates: .*lung\.csv does not exist"),
        (FITS + "[gate]\ncalibration_slope = [1.25, 0.8]", "give a range around 1"),
        (FITS.replace("false", 'false\nsource = "volumes"'), "cut to the lungs"),
        (FITS + 'kind = "sites"', r"splits\.groups, or split by patients"),
        (FITS + 'kind = "temporal"\nby = "manufacturer"', r"splits\.groups, or split by patients"),
        (FITS + 'kind = "sites"\nby = "manufacturer"', ""),
        ("arms = [", "is not TOML"),
    ],
)
def test_the_settings_are_checked_against_what_an_export_will_hold(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "training.toml").write_text(text)
    table = {"registry": {"record": True, "volumes": True}, "analysis": {"radiomics": False}}
    settings = config.parse(table, tmp_path / "ae_config.toml")
    if not message:
        assert "settings fit: radiomics" in check_settings(settings, None)
        return
    with pytest.raises(UsageError, match=message):
        check_settings(settings, None)


def test_check_finds_a_scheduled_run_that_the_gate_could_not_judge(tmp_path: Path) -> None:
    (tmp_path / "training.toml").write_text(FITS)
    without = config.parse({"registry": {"record": True}}, tmp_path / "ae_config.toml")
    with pytest.raises(UsageError, match=r"the gate needs the scans' volumes.*set registry\.volumes = true"):
        check_settings(without, None)
    scheduled = {"retraining": {"schedule": "0 2 * * sun"}, "registry": {"record": True}}
    result = next(iter(_retraining(config.parse(scheduled, tmp_path / "ae_config.toml"))))
    assert not result.ok and "registry.volumes = true" in result.text


@pytest.fixture
def prepared(node: Node, tmp_path: Path) -> Path:
    """The configuration of a node that can retrain, and beside it a training package that only says it is at work."""
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    node.outcomes("patient_id,death_date,last_contact_date\nPAT-1,2021-01-01,\n")
    (tmp_path / "training.toml").write_text("")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    code = AT_WORK.format(stubborn=False).replace("sys.argv[1]", "'mark'")
    (tmp_path / "training" / "__main__.py").write_text(code)
    path = tmp_path / "ae_config.toml"
    path.write_text('[storage]\nstate = "."\n[registry]\nfolder = "registry"\n[retraining]\nfolder = "retraining"\n')
    return path


@contextmanager
def by_hand(path: Path) -> "Iterator[subprocess.Popen[str]]":
    """`dicomnode registry retrain`, which finds the training package in the folder that it runs in."""
    command = [sys.executable, "-m", "dicomnode", "registry", "retrain", "--config", str(path)]
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=path.parent, env=where, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_by_hand_too_one_at_a_time(prepared: Path, end: signal.Signals) -> None:
    mark, lock = prepared.with_name("mark"), prepared.parent / "retraining" / ".lock"
    with by_hand(prepared) as first:
        until("training is at work", lambda: is_at_work(mark))
        with by_hand(prepared) as second:
            assert "another retraining is running" in second.communicate(timeout=240)[1]
        assert second.returncode == 2
        first.send_signal(end)
        first.communicate()
        # Told to end, it has ended its training; killed, it could not, and nobody may begin beside that one.
        assert [is_free(mark), is_free(lock)] == [end == signal.SIGTERM] * 2
    until("the lock is free", lambda: is_free(lock), 10)
