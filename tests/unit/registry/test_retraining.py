"""The scheduled retraining: by cron's words, one at a time, never without settings, scans and outcomes."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.intake.catalog import Catalog
from dicomnode.registry.retraining import Retraining, retrain, trigger


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    yield opened
    opened.close()


def test_the_schedule_is_that_of_cron_in_utc() -> None:
    sunday = trigger("0 2 * * sun").get_next_fire_time(None, datetime(2026, 11, 23, tzinfo=UTC))
    assert sunday == datetime(2026, 11, 29, 2, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match=r"retraining\.schedule = 'weekly'"):
        trigger("weekly")


def test_without_settings_or_scans_nothing_begins(tmp_path: Path, catalog: Catalog) -> None:
    settings = config.parse({}, tmp_path / "ae_config.toml")
    with pytest.raises(UsageError, match="write the settings"):
        retrain(settings, catalog)
    (tmp_path / "training.toml").write_text("")
    with pytest.raises(UsageError, match="holds no scan"):
        retrain(settings, catalog)


def test_one_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    retraining = Retraining(tmp_path / "ae_config.toml")
    retraining._command = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert retraining.begin()
    assert not retraining.begin()
    assert "still at work" in caplog.text
    retraining.stop()
    assert retraining.begin()
    retraining.stop()
