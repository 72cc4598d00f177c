"""Notifications under trouble: a receiver that is away delays no result, and a restart loses nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.workflows import runtime
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.receivers import MailServer, Webhook
from tests.helpers.waiting import until

UID = study_uid("a")


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.close()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("secret")
    return tmp_path / "key"


def table(url: str, key: Path, events: str = '"delivered", "failed", "refused", "held"', name: str = "hook") -> str:
    return (
        f'[[notify]]\nname = "{name}"\nkind = "webhook"\nevents = [{events}]\nurl = "{url}"\n'
        f"secret_file = {json.dumps(str(key))}\ntimeout_s = 20\nretry_first_s = 0.2\nretry_longest_s = 0.4\n"
    )


def told(hook: Webhook) -> list[str]:
    return [json.loads(body)["event"] for _, body in hook.came]


def test_a_delivered_study_is_told_once_to_each(files: list[Path], tmp_path: Path, hook: Webhook, key: Path) -> None:
    pacs, mails = Pacs(tmp_path / "pacs"), MailServer()
    pacs.start()
    mail = (
        f'[[notify]]\nname = "it"\nkind = "email"\nevents = ["delivered"]\nto = ["a@b.example"]\n'
        f'sender = "n@b.example"\nserver = "{mails.address}"\nsecurity = "none"\n'
    )
    only_failed = table(hook.url, key, '"failed"', "failures")
    station = Station(tmp_path / "node", pacs.destination(), more=table(hook.url, key) + only_failed + mail)
    with running(mails, pacs, station):
        station.start_worker()
        station.send(files)
        station.settle(UID)
        station.ended(UID, 1, "delivered")
        assert station.clock.hand_over() == 1
        assert station.clock.hand_over() == 0
        until("told", lambda: hook.came and mails.mails, 30)
        ((headers, body),) = hook.came
        assert json.loads(body)["study_uid"] == UID
        assert headers["idempotency-key"].endswith(".hook")
        (mail_text,) = mails.mails
        assert "Subject: dicomnode: study delivered" in mail_text
        assert "TEST-a" not in mail_text + body.decode()  # the patient's ID


def test_a_receiver_that_is_away_delays_no_result_and_is_told_after_a_restart(
    files: list[Path], tmp_path: Path, key: Path
) -> None:
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    port = free_port()
    station = Station(tmp_path / "node", pacs.destination(), more=table(f"http://127.0.0.1:{port}/hook", key))
    with running(pacs, station):
        station.start_worker()
        station.send(files)
        station.settle(UID)
        station.ended(UID, 1, "delivered")
        assert len(pacs.came) == 3
        station.clock.hand_over()

        def attempts() -> int:
            found = station.queue._client.list_workflows(workflow_id_prefix="notify/")
            return sum(w.status == "SUCCESS" for w in found)

        until("tried more than once", lambda: attempts() > 1, 30)
        runtime.stop(0)
        hook = Webhook(port)
        with running(hook):
            station.start_worker()
            until("told at last", lambda: hook.came, 30)
            assert told(hook) == ["delivered"]


def test_a_refusal_is_tried_again_with_the_same_key(
    files: list[Path], tmp_path: Path, hook: Webhook, key: Path
) -> None:
    hook.status = 401
    station = Station(tmp_path / "node", "", more=table(hook.url, key))
    with running(station):
        station.start_worker()
        station.send(files[:3])  # too few for an analysis
        station.settle(UID)
        station.ended(UID, 1, "refused")
        station.clock.hand_over()
        until("tried", lambda: len(hook.came) > 1, 30)
        hook.status = 204
        before = len(hook.came)
        until("told", lambda: len(hook.came) > before, 30)
        assert set(told(hook)) == {"refused"}
        assert len({headers["idempotency-key"] for headers, _ in hook.came}) == 1


def test_given_up_in_time(files: list[Path], tmp_path: Path, hook: Webhook, key: Path) -> None:
    hook.status = 500
    station = Station(tmp_path / "node", "", more=table(hook.url, key) + "retry_for_s = 0.3\n")
    with running(station):
        station.start_worker()
        station.send(files[:3])
        station.settle(UID)
        station.ended(UID, 1, "refused")
        station.clock.hand_over()

        def ended() -> list[object]:
            found = station.queue._client.list_workflows(workflow_id_prefix="notify/")
            return [w.output for w in found if w.output == "given up"]

        until("given up", ended, 30)
        assert len(hook.came) < 6
