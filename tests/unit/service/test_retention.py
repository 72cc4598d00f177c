"""What makes room: only what was delivered and is old enough, the oldest first, whatever crashes or clocks do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import SpoolError
from dicomnode.service import retention
from dicomnode.service.retention import CarefulClock, Room, SetAside, make_room, remove_set_aside
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, JobState
from dicomnode.store.spool import Spool

DAY = 86_400.0
ROOM = Room(low_free_bytes=1000, retention_s=7 * DAY)


class Node:
    """A spool and a catalogue; `free` says what the disk answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spool, self.results = Spool(folder / "spool"), folder / "results"
        self.catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
        self.free: Callable[[], int] = lambda: 0
        monkeypatch.setattr(self.spool, "free_bytes", self._free)

    def _free(self) -> int:
        return self.free()

    def study(self, uid: str, state: JobState, ended_at: float) -> None:
        self.image(uid, 1, ended_at)
        generation = self.catalog.settle(uid, ended_at, "two-patients" if state == "held" else None).generation
        if state not in ("queued", "held"):
            self.catalog.set_state(uid, generation, state, now=ended_at)
        folder = self.results / uid / f"g{generation}"
        folder.mkdir(parents=True)
        (folder / "findings.json").write_text("{}")
        (folder / "seg.dcm").write_bytes(b"SEG")

    def image(self, uid: str, number: int, now: float) -> None:
        stored = self.spool.store(uid, f"{uid}.1", f"{uid}.1.{number}", b"meta", b"data%d" % number)
        self.catalog.record(
            Instance(f"{uid}.1.{number}", "1.2", uid, f"{uid}.1", str(stored.path), stored.sha256, 9, now, None, "p")
        )

    def make_room(self, now: float) -> list[str]:
        return make_room(ROOM, self.spool, self.results, self.catalog, now)

    def files(self, uid: str) -> list[Path]:
        return sorted([*self.spool.root.rglob(f"{uid}.1.*.dcm"), *(self.results / uid).rglob("*.dcm")])

    def findings(self, uid: str) -> list[Path]:
        return sorted((self.results / uid).rglob("*.json"))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(retention, "_CRASHED_S", -60.0)
    return Node(tmp_path, monkeypatch)


def test_nothing_is_removed_while_there_is_room(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    node.free = lambda: 1000
    assert node.make_room(100 * DAY) == []
    assert len(node.files("1.2")) == 2


def test_the_longest_ended_goes_first_and_no_more_than_is_needed(node: Node) -> None:
    for uid, ended in (("1.1", 3.0), ("1.2", 1.0), ("1.3", 2.0)):
        node.study(uid, "delivered", ended)
    node.free = lambda: 1000 if not node.files("1.2") and not node.files("1.3") else 0
    assert node.make_room(100 * DAY) == ["1.2", "1.3"]
    assert len(node.files("1.1")) == 2
    assert node.catalog.instances("1.2") == []
    assert node.spool.moved_out(float("inf")) == []


@pytest.mark.parametrize(
    ("state", "goes"),
    [
        ("delivered", True),
        ("refused", True),
        ("queued", False),
        ("running", False),
        ("analysed", False),
        ("failed", False),
        ("held", False),
        ("cancelled", False),
    ],
)
def test_only_what_was_delivered_or_refused_is_removed(node: Node, state: JobState, goes: bool) -> None:
    node.study("1.2", state, 0.0)
    assert node.make_room(100 * DAY) == (["1.2"] if goes else [])
    assert len(node.files("1.2")) == (0 if goes else 2)
    assert len(node.findings("1.2")) == 1


def test_findings_outlive_the_images_but_not_for_ever(node: Node) -> None:
    for uid in ("1.2", "1.3"):
        node.study(uid, "delivered", 0.0)
    for days, kept in ((20, 1), (49, 1), (51, 0)):
        make_room(replace(ROOM, findings_s=50 * DAY), node.spool, node.results, node.catalog, days * DAY)
        assert [len(node.findings(uid)) for uid in ("1.2", "1.3")] == [kept, kept]
        assert node.catalog.other_studies("1.2") == ["1.3"] * kept
    assert list(node.results.iterdir()) == []


@pytest.mark.parametrize(("days", "goes"), [(6.9, False), (7.1, True)])
def test_the_retention_time_holds_even_on_a_full_disk(node: Node, days: float, goes: bool) -> None:
    node.study("1.2", "delivered", 0.0)
    assert bool(node.make_room(days * DAY)) is goes


def test_a_study_that_receives_again_stays(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    node.image("1.2", 2, 50 * DAY)
    assert node.make_room(100 * DAY) == []
    assert len(node.files("1.2")) == 3


def test_an_image_that_comes_just_now_keeps_its_study(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    (old,) = node.catalog.releasable(100 * DAY, 0.0)
    node.image("1.2", 1, 100 * DAY)
    assert node.catalog.release(old, lambda: pytest.fail("moved")) is False
    assert len(node.catalog.instances("1.2")) == 1


def test_what_comes_again_after_its_removal_is_new(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    node.make_room(100 * DAY)
    node.image("1.2", 1, 101 * DAY)
    study = node.catalog.study("1.2")
    assert study is not None
    assert (study.state, study.instances, study.generation) == ("receiving", 1, 1)


def test_a_crash_before_the_commit_puts_the_study_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.study("1.2", "delivered", 0.0)
    move_out = node.spool.move_out

    def crash(uid: str) -> None:
        move_out(uid)
        raise SpoolError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(node.spool, "move_out", crash)
        with pytest.raises(SpoolError):
            node.make_room(100 * DAY)
    assert not Path(node.catalog.instances("1.2")[0].path).exists()
    node.image("1.2", 2, 100 * DAY)  # its folder is there again
    node.free = lambda: 1000
    node.make_room(100 * DAY)
    assert all(Path(one.path).exists() for one in node.catalog.instances("1.2"))
    assert len(node.catalog.instances("1.2")) == 2


def test_a_crash_after_the_commit_is_finished_later(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    (study,) = node.catalog.releasable(100 * DAY, 0.0)
    assert node.catalog.release(study, lambda: node.spool.move_out("1.2"))
    assert node.spool.moved_out(float("inf")) == ["1.2"]
    node.free = lambda: 1000
    node.make_room(100 * DAY)
    assert node.spool.moved_out(float("inf")) == []


def test_a_study_uid_is_no_path(node: Node) -> None:
    node.study("1.2", "delivered", 0.0)
    outside = node.results.parent / "precious"
    outside.mkdir()
    (study,) = node.catalog.releasable(100 * DAY, 0.0)
    retention._remove(replace(study, study_uid="../precious"), node.spool, node.results, node.catalog)
    assert outside.is_dir()


def test_removal_of_a_file_that_cannot_be_deleted_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.study("1.2", "delivered", 0.0)

    def refused(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dicomnode.store.spool.shutil.rmtree", refused)
    with pytest.raises(SpoolError, match="Permission denied"):
        node.make_room(100 * DAY)
    assert [path.name for path in (node.spool.root / "leaving").iterdir()] == ["1.2"]


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY], ids=["set back", "set forward"])
def test_a_clock_that_is_set_expires_nothing(jump: float) -> None:
    wall, steady = 1000 * DAY, 5.0
    clock = CarefulClock(lambda: wall, lambda: steady)
    assert clock() == 1000 * DAY
    wall, steady = wall + jump + 60.0, steady + 60.0
    assert clock() <= 1000 * DAY + 60.0
    wall, steady = wall + 8 * DAY, steady + 8 * DAY
    assert clock() - (1000 * DAY + 60.0) <= 8 * DAY


# Held and cancelled studies

ASIDE = SetAside(held_s=180 * DAY, cancelled_s=30 * DAY, notice_s=7 * DAY)


def set_aside(node: Node, days: float, times: SetAside = ASIDE) -> list[str]:
    return remove_set_aside(times, node.spool, node.results, node.catalog, days * DAY)


@pytest.mark.parametrize(("state", "days"), [("held", 180), ("cancelled", 30)])
def test_they_go_after_their_own_time_and_a_notice(node: Node, state: JobState, days: int) -> None:
    node.study("1.2", state, 0.0)
    told = [e.event_id for e in node.catalog.events(10)]
    assert set_aside(node, days - 7.1) == []
    assert [e.event_id for e in node.catalog.events(10)] == told
    for passed in (days - 7, days - 6, days - 0.1):
        assert set_aside(node, passed) == []
    (notice,) = [e for e in node.catalog.events(10) if e.event_id not in told]
    assert (notice.state, notice.study_uid) == ("expiring", "1.2")
    assert f"{state} for {days - 7} days" in str(notice.reason)
    assert len(node.files("1.2")) == 2
    assert set_aside(node, days) == ["1.2"]
    assert node.files("1.2") == []
    assert len(node.findings("1.2")) == 1
    job = node.catalog.job("1.2", 1)
    assert job is not None and job.state == "cancelled"
    assert set_aside(node, 999) == []


def test_a_notice_that_comes_late_puts_it_off(node: Node) -> None:
    """The node was off for a year."""
    node.study("1.2", "cancelled", 0.0)
    assert set_aside(node, 365) == []
    assert set_aside(node, 371.9) == []
    assert set_aside(node, 372) == ["1.2"]


def test_what_is_taken_up_again_stays(node: Node) -> None:
    node.study("1.2", "cancelled", 0.0)
    set_aside(node, 25)
    node.catalog.set_state("1.2", 1, "queued", "retried manually", now=26 * DAY)
    assert set_aside(node, 400) == []
    node.catalog.set_state("1.2", 1, "cancelled", "once more", now=401 * DAY)
    assert set_aside(node, 430.9) == []  # a time of its own, and a notice of its own
    assert set_aside(node, 437.9) == ["1.2"]


def test_others_and_those_without_a_time_stay(node: Node) -> None:
    for number, state in enumerate(("queued", "running", "analysed", "failed", "delivered", "refused", "ignored")):
        node.study(f"1.{number + 2}", state, 0.0)  # type: ignore[arg-type]
    node.study("1.20", "held", 0.0)
    node.study("1.21", "cancelled", 0.0)
    node.study("1.22", "cancelled", 0.0)
    node.image("1.22", 2, 1.0)  # it goes on
    never = SetAside(held_s=0, cancelled_s=0, notice_s=7 * DAY)
    assert set_aside(node, 9999, never) == set_aside(node, 99999, never) == []
    assert set_aside(node, 9999) == []
    assert set_aside(node, 99999) == ["1.20", "1.21"]
