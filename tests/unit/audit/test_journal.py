"""The receiver's journal: what was noted is handed over once, whoever died in between."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dicomnode.audit import journal
from dicomnode.audit.journal import Journal, Noted, Refusals
from dicomnode.audit.messages import AuditMessage
from dicomnode.errors import SpoolError

ONE, TWO = (AuditMessage("110113", float(n), f"<a n='{n}'/>") for n in (1, 2))


class Outbox:
    def __init__(self) -> None:
        self.rows: dict[str, AuditMessage] = {}
        self.is_away = False

    def put(self, noted: Sequence[Noted]) -> None:
        if self.is_away:
            raise SpoolError("away")
        self.rows |= {n.message_id: n.message for n in noted}


def test_what_is_noted_is_handed_over_once(tmp_path: Path) -> None:
    box, mine = Outbox(), Journal(tmp_path / "audit", "me")
    mine.note(ONE)
    mine.note(TWO)
    assert mine.drain(box.put) == 2
    assert mine.drain(box.put) == 0
    assert list(box.rows.values()) == [ONE, TWO]
    assert list((tmp_path / "audit").iterdir()) == []


def test_what_the_database_did_not_take_stays(tmp_path: Path) -> None:
    box, mine = Outbox(), Journal(tmp_path, "me")
    mine.note(ONE)
    box.is_away = True
    for _ in range(2):
        with pytest.raises(SpoolError):
            mine.drain(box.put)
        mine.note(TWO)
    box.is_away = False
    assert mine.drain(box.put) == 3
    assert len(box.rows) == 3


def test_the_dead_are_inherited_and_the_living_are_not(tmp_path: Path) -> None:
    box = Outbox()
    for name in ("dead", "alive"):
        one = Journal(tmp_path, name)
        one.note(ONE)
        one.keep_count(7)
    untold: list[int] = []
    heir = Journal(tmp_path, "me")
    assert heir.adopt(lambda name: name == "alive", box.put, untold.append) == 1
    assert heir.adopt(lambda name: name == "alive", box.put, untold.append) == 0
    assert untold == [7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.refused", "alive~0.journal"]


def test_a_line_that_was_cut_off_takes_no_other_away(tmp_path: Path) -> None:
    box = Outbox()
    Journal(tmp_path, "dead").note(ONE)
    with next(tmp_path.glob("*.journal")).open("ab") as file:
        file.write(b'{"id": "x", "ev')
    assert Journal(tmp_path, "me").adopt(lambda _: False, box.put, lambda _: None) == 1


def test_the_journal_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 4_000)
    mine = Journal(tmp_path, "me")
    with pytest.raises(OSError, match="more than"):
        for _ in range(1_000):
            mine.note(ONE)
    assert mine.size() < 6_000


def test_of_a_thousand_refusals_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    now = [0.0]
    mine = Journal(tmp_path, "me")
    told = Refusals(mine.keep_count, most=20, window_s=60, clock=lambda: now[0])
    assert sum(told.is_told() for _ in range(1_000)) == 20
    untold: list[int] = []
    told.tell_others(untold.append)
    assert untold == []
    # Killed now, the number is not lost.
    Journal(tmp_path, "heir").adopt(lambda _: False, lambda _: None, untold.append)
    assert untold == [980]
    now[0] = 61
    told.tell_others(untold.append)
    assert untold == [980, 980]
    assert told.is_told()
