"""What is told: no patient data by default, one line as subject, the same key at each attempt."""

from pathlib import Path

import pytest

from dicomnode.config import NotifyTable
from dicomnode.outbound.notify import sending
from dicomnode.outbound.notify.message import kind, message
from dicomnode.store.records import Event, Instance
from tests.helpers.ct_files import ct_series, write

EVENT = Event("e" * 32, "1.2.3", 2, "failed", "seg to pacs: no connection\n(timed out)", 0.0)
MAIL = NotifyTable(name="it", kind="email", to=("a@b.example",), sender="n@b.example", server="127.0.0.1:25")


def test_the_default_texts() -> None:
    told = message(EVENT, MAIL, "NODE", {})
    assert told.subject == "dicomnode: study failed"
    assert told.text.startswith("NODE: study 1.2.3 (generation 2) is failed, 1970-01-01T00:00:00Z.\nseg to pacs")
    assert told.key == f"{'e' * 32}.it"
    assert set(told.fields) == {"event", "study_uid", "generation", "reason", "node", "at", "id"}


def test_a_subject_is_one_line() -> None:
    to = MAIL.model_copy(update={"subject": "$event: $reason"})
    assert message(EVENT, to, "NODE", {}).subject == "failed: seg to pacs: no connection (timed out)"


@pytest.mark.parametrize(
    ("state", "expected"),
    [("delivered", "delivered"), ("committed", "delivered"), ("failed", "failed"), ("refused", "refused"),
     ("held", "held")],
)  # fmt: skip
def test_states_as_events(state: str, expected: str) -> None:
    assert kind(Event("e", "1", 1, state, None, 0.0)) == expected  # type: ignore[arg-type]


class Images:
    """A catalogue that knows one image."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def instances(self, _study_uid: str) -> list[Instance]:
        return [Instance("1", "2", "3", "4", str(self._path), "", 0, 0.0, None, "")]


def test_patient_data_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ct_series(AccessionNumber="ACC-7")[0]
    (path,) = write([image], tmp_path)
    to = NotifyTable(**{**MAIL.model_dump(), "template": "$AccessionNumber: $PatientName", "patient_data": True})
    sent = []
    monkeypatch.setattr(sending.mail, "send", lambda _to, told: sent.append(told))
    from dicomnode.config import Config

    sending.send(Config(), to, EVENT, Images(path))  # type: ignore[arg-type]
    path.unlink()
    sending.send(Config(), to, EVENT, Images(path))  # type: ignore[arg-type]
    sending.send(Config(), MAIL, EVENT, Images(path))  # type: ignore[arg-type]
    assert [told.text for told in sent[:2]] == ["ACC-7: Secret^Name", ": "]
    assert "Secret" not in sent[2].text + sent[2].subject + str(sent[0].fields)
