"""A clock that is set, seen from the ticks: nothing settles at once, nothing waits for ever, nothing expires."""

from pathlib import Path
from typing import cast

import pytest

from dicomnode import config
from dicomnode.service.clock import Housekeeping
from dicomnode.service.pacs_count import Counts
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, StudyIntake
from dicomnode.store.spool import Spool
from dicomnode.workflows.queue import Queue

DAY = 86_400.0
START = 20_000 * DAY


class NoQueue:
    """The ticks need somebody who takes their jobs."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def enqueue(self, study_uid: str, generation: int, *, again: bool, priority: int = 0) -> None:
        self.taken.append((study_uid, generation))


class Clocks:
    """Time of day and monotonic time; both go on, one can be set."""

    def __init__(self) -> None:
        self.wall, self.steady = START, 100.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    # A first watermark that no disk reaches: whatever may be removed is removed.
    text = "[settle]\nquiet_s = 60\n[storage]\nlow_free_gb = 1e9\nretention_days = 7\n"
    (tmp_path / "ae_config.toml").write_text(text)
    made = config.load(tmp_path / "ae_config.toml")
    made.storage.state.mkdir(parents=True)
    return made


@pytest.fixture
def catalog(settings: config.Config) -> Catalog:
    return Catalog.open(settings.catalog_url, settings.storage.state)


@pytest.fixture
def ticks(settings: config.Config, catalog: Catalog, clocks: Clocks) -> Housekeeping:
    return Housekeeping(settings, catalog, cast(Queue, NoQueue()), lambda: clocks.wall, lambda: clocks.steady)


def receive(settings: config.Config, catalog: Catalog, now: float) -> None:
    stored = Spool(settings.storage.spool).store("1.2", "1.2.3", "1.2.3.1", b"meta", b"data")
    catalog.record(Instance("1.2.3.1", "1", "1.2", "1.2.3", str(stored.path), stored.sha256, 8, now, None, "p" * 32))


def test_set_back_a_study_settles_once_its_silence_is_over(
    settings: config.Config, catalog: Catalog, ticks: Housekeeping, clocks: Clocks
) -> None:
    receive(settings, catalog, clocks.wall)
    clocks.pass_by(30)
    clocks.wall -= 3 * DAY
    assert ticks.settle() == []
    clocks.pass_by(59)
    assert ticks.settle() == []
    clocks.pass_by(2)
    assert ticks.settle() == [("1.2", 1)]


@pytest.mark.parametrize(
    ("left", "waited"), [(1.5, []), (0.25, [0.25])], ids=["after the next tick", "before the next tick"]
)
def test_a_study_settles_at_its_time_and_not_at_the_tick_after(
    settings: config.Config,
    catalog: Catalog,
    ticks: Housekeeping,
    clocks: Clocks,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    waited: list[float],
) -> None:
    waits: list[float] = []

    class Stopping:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            clocks.pass_by(seconds)
            return False

    monkeypatch.setattr(ticks, "_stopping", Stopping())
    receive(settings, catalog, clocks.wall)
    clocks.pass_by(60 - left)
    ticks.settle_in_time()
    assert waits == waited
    assert len(catalog.jobs("queued")) == len(waited)


def test_set_forward_a_study_that_settles_early_loses_nothing(
    settings: config.Config, catalog: Catalog, ticks: Housekeeping, clocks: Clocks
) -> None:
    receive(settings, catalog, clocks.wall)
    clocks.wall += 3 * DAY
    assert ticks.settle() == [("1.2", 1)]
    stored = Spool(settings.storage.spool).store("1.2", "1.2.3", "1.2.3.2", b"meta", b"late")
    catalog.record(
        Instance("1.2.3.2", "1", "1.2", "1.2.3", str(stored.path), stored.sha256, 8, clocks.wall, None, "p" * 32)
    )
    clocks.pass_by(61)
    assert ticks.settle() == [("1.2", 2)]


def test_the_pacs_is_not_asked_about_a_study_whose_images_a_command_still_brings(
    settings: config.Config, catalog: Catalog, ticks: Housekeeping, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Asked(Counts):
        def lacks(self, study: StudyIntake, now: float) -> bool:
            asked.append(study.study_uid)
            return now < 0  # nothing

    monkeypatch.setattr(ticks, "_counts", Asked(lambda _: {}, 1.0))
    catalog.begin_bulk("1.2", "import", keep=True, patient="", now=clocks.wall)
    receive(settings, catalog, clocks.wall)
    for _ in range(3):
        clocks.pass_by(61)
        assert ticks.settle() == []
    assert asked == []
    catalog.end_bulk("1.2", clocks.wall)
    assert ticks.settle() == [("1.2", 1)]
    assert asked == ["1.2"]


@pytest.mark.parametrize("jump", [-300 * DAY, 300 * DAY], ids=["set back", "set forward"])
def test_a_delivered_study_is_kept_for_its_time_whatever_the_clock_says(
    settings: config.Config, catalog: Catalog, ticks: Housekeeping, clocks: Clocks, jump: float
) -> None:
    receive(settings, catalog, clocks.wall)
    clocks.pass_by(61)
    ticks.settle()
    catalog.set_state("1.2", 1, "delivered", now=clocks.wall)
    clocks.wall += jump
    assert ticks.make_room() == []
    clocks.pass_by(6 * DAY)
    assert ticks.make_room() == []
    clocks.pass_by(2 * DAY)
    assert ticks.make_room() == ([] if jump < 0 else ["1.2"])
