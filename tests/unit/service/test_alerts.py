"""What is wrong with the node is told once, and once more when it is over; a restart repeats nothing."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import DatabaseError
from dicomnode.network.certificates import TlsFinding
from dicomnode.service import conditions
from dicomnode.service.alerts import Alerts, AlertSender
from dicomnode.service.database_away import FILE, DatabaseAway
from dicomnode.store.catalog.alerts import RefusalCount
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.workflows.queue import WORKFLOW_VERSION
from tests.helpers.ports import free_port
from tests.helpers.receivers import MailServer, Webhook

NOW = 1_800_000_000.0


@dataclass
class Process:
    """As the supervisor has it."""

    name: str = "worker-0"
    failures: int = 0
    needs_a_person: bool = False
    last_words: str = ""
    is_steady: bool = True


class Site:
    """A node's catalogue and configuration, a webhook and a mail server, and a clock to be set."""

    def __init__(self, folder: Path, more: str = "", alerts: str = "") -> None:
        self.hook, self.mails, self.now = Webhook(), MailServer(), NOW
        self.key = folder / "key"
        self.key.write_text("secret")
        path = folder / "ae_config.toml"
        path.write_text(
            f"[alerts]\n{alerts}\n"
            f'[[notify]]\nname = "hook"\nkind = "webhook"\nurl = "{self.hook.url}"\n'
            f"secret_file = {json.dumps(str(self.key))}\n"
            f'[[notify]]\nname = "it"\nkind = "email"\nevents = ["alert"]\nto = ["a@b.example"]\n'
            f'sender = "n@b.example"\nserver = "{self.mails.address}"\nsecurity = "none"\n'
            f'[[notify]]\nname = "results"\nkind = "webhook"\nevents = ["delivered"]\nurl = "{self.hook.url}"\n'
            f"secret_file = {json.dumps(str(self.key))}\n{more}"
        )
        self.config = config.load(path)
        for one in ("spool", "results", "state"):
            getattr(self.config.storage, one).mkdir(parents=True)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        self.catalog.register_worker("w", WORKFLOW_VERSION)
        self.process = Process()
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        self.alerts = Alerts(self.config, self.catalog, [self.process], lambda: self.now, lambda: self.now)
        self.sender = AlertSender(self.config, self.catalog, lambda: self.now)

    def told(self) -> list[tuple[str, str]]:
        """Send what is due; what the webhook has got since the last time."""
        for to in self.config.notify:
            self.sender.send_due(to)
        came = [json.loads(body) for _, body in self.hook.came]
        self.hook.came.clear()
        return [(one["event"], one["reason"]) for one in came]

    def close(self) -> None:
        self.catalog.close()
        self.hook.close()
        self.mails.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def receive(catalog: Catalog, at: float) -> None:
    catalog.record(Instance("1.2.1", "1.9", "1.2", "1.5", "/x", "0" * 64, 1, at, None, "a" * 64))


def fill(monkeypatch: pytest.MonkeyPatch, free_gb: float) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(conditions.shutil, "disk_usage", lambda _path: usage._replace(free=int(free_gb * 1e9)))


def over(site: Site) -> list[str]:
    """What is over, once it has been well for a while, and not before."""
    assert site.alerts.look_at_node() == []
    site.now += 599
    assert site.alerts.look_at_node() == []
    site.now += 1
    return site.alerts.look_at_node()


def ask(site: Site) -> None:
    for thread in site.alerts.ask_peers():
        thread.join()


def test_a_full_disk_is_told_once_over_restarts_and_once_when_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, 50)
    assert site.alerts.look_at_node() == []
    fill(monkeypatch, 4.9)
    (key,) = site.alerts.look_at_node()
    assert key.startswith("disk-spool@")
    site.start()
    assert site.alerts.look_at_node() == []
    ((event, reason),) = site.told()
    assert event == "alert" and "4.9 GB free for storage.spool" in reason
    fill(monkeypatch, 5.2)  # above the mark, and not yet well: it does not flap
    assert site.alerts.look_at_node() == [] and site.told() == []
    fill(monkeypatch, 6)
    site.start()
    assert over(site) == [key]
    ((event, reason),) = site.told()
    assert event == "alert-over" and reason.startswith("over: 4.9 GB free")
    assert site.alerts.look_at_node() == [] and site.told() == []
    subjects = [line for mail in site.mails.mails for line in mail.splitlines() if line.startswith("Subject")]
    assert subjects == ["Subject: dicomnode: alert of DICOMNODE", "Subject: dicomnode: alert of DICOMNODE is over"]


def test_a_worker_that_does_not_start_is_told_with_its_last_words(site: Site) -> None:
    site.process.failures, site.process.needs_a_person = 1, True
    site.process.last_words = "bundle x has format 3, this dicomnode reads 5: train it again"
    site.alerts.look_at_node()
    ((event, reason),) = site.told()
    assert event == "alert" and "worker-0" in reason and "bundle x has format 3" in reason
    site.process.failures = 2
    assert site.alerts.look_at_node() == []
    site.start()
    site.process.failures, site.process.needs_a_person, site.process.is_steady = 0, False, False
    for _ in range(3):  # the node was started again: it is not known yet whether the worker stays
        site.now += 600
        assert site.alerts.look_at_node() == []
    site.process.is_steady = True
    assert len(over(site)) == 1
    assert [event for event, _ in site.told()] == ["alert-over"]


def test_a_worker_that_crashes_once_or_twice_is_nobodys_alert(site: Site) -> None:
    for site.process.failures in (1, 2):
        assert site.alerts.look_at_node() == []
    site.process.failures = 3
    assert len(site.alerts.look_at_node()) == 1


def test_no_worker_anywhere(site: Site) -> None:
    (worker,) = site.catalog.workers()
    lease = site.catalog.register_worker(worker.name, WORKFLOW_VERSION)
    site.catalog.give_back(lease)
    assert site.alerts.look_at_node() == []
    site.now += 599
    assert site.alerts.look_at_node() == []
    site.now += 1
    assert site.alerts.look_at_node() == ["no-worker"]
    site.catalog.register_worker("other", WORKFLOW_VERSION)
    assert over(site) == ["no-worker"]
    assert [event for event, _ in site.told()] == ["alert", "alert-over"]


def test_a_peer_that_is_away_for_long_enough(tmp_path: Path) -> None:
    port = free_port()
    more = f'[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 1\n'
    more += f'[worklist]\nae_title = "RIS"\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 1\n'
    site = Site(tmp_path, more)
    try:
        assert site.alerts.look_at_node() == []  # nobody has been asked yet
        ask(site)
        assert site.alerts.look_at_node() == []
        site.now += 600
        ask(site)
        keys = site.alerts.look_at_node()
        assert [key.partition("@")[0] for key in keys] == ["destination pacs", "worklist"]
        site.start()
        assert site.alerts.look_at_node() == []  # not known yet: what was told stands
        site.alerts._peers = {"destination pacs": None, "worklist": "no connection"}
        assert [key.partition("@")[0] for key in over(site)] == ["destination pacs"]
        assert [event for event, _ in site.told()] == ["alert", "alert", "alert-over"]
    finally:
        site.close()


def test_a_peer_that_is_no_longer_configured_is_over(site: Site) -> None:
    site.alerts._peers = {"destination gone": "no connection"}
    site.alerts.look_at_node()
    site.now += 600
    assert len(site.alerts.look_at_node()) == 1
    site.start()
    assert len(site.alerts.look_at_node()) == 1
    assert [event for event, _ in site.told()] == ["alert", "alert-over"]


def test_refused_associations(site: Site) -> None:
    site.catalog.note_refusals([RefusalCount("calling AE title or address not recognised", "CT9 at 192.0.2.1", 9)], NOW)
    assert site.alerts.look_at_node() == []
    site.catalog.note_refusals([RefusalCount("calling AE title or address not recognised", "CT9 at 192.0.2.1", 1)], NOW)
    assert site.alerts.look_at_node() == ["refused-10-in-60"]
    ((_, reason),) = site.told()
    assert "10 associations refused" in reason and "CT9 at 192.0.2.1" in reason
    site.now += 1800
    assert site.alerts.look_at_node() == []
    site.now += 2700
    assert over(site) == ["refused-10-in-60"]
    assert [event for event, _ in site.told()] == ["alert-over"]


def test_a_silence(site: Site) -> None:
    assert site.alerts.look_at_node() == []  # nothing ever came: the node is being set up
    receive(site.catalog, NOW - 96 * 3600 + 1)
    assert site.alerts.look_at_node() == []
    site.now += 1
    assert site.alerts.look_at_node() == ["silent-96"]
    site.catalog.record(Instance("1.2.2", "1.9", "1.2", "1.5", "/y", "1" * 64, 1, site.now, None, "a" * 64))
    assert over(site) == ["silent-96"]


def test_an_image_of_a_clock_that_was_years_ahead_hides_no_silence(site: Site) -> None:
    receive(site.catalog, NOW - 97 * 3600)
    site.catalog.record(Instance("1.3.1", "1.9", "1.3", "1.5", "/z", "2" * 64, 1, NOW + 1e8, None, "a" * 64))
    assert site.alerts.look_at_node() == ["silent-96"]


def test_dead_letters(site: Site) -> None:
    receive(site.catalog, NOW)
    site.catalog.settle("1.2", NOW, held=None)
    site.catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", "2.1", "/out", now=NOW)
    site.catalog.mark_delivery("1.2", 1, "pacs", "seg", "rejected", status=1, text="no", attempts=1, now=NOW)
    site.catalog.set_state("1.2", 1, "failed", "no", now=NOW)
    assert site.alerts.look_at_node() == ["dead-letters-pacs"]
    assert "1 object not delivered to pacs" in site.told()[0][1]
    site.catalog.set_state("1.2", 1, "cancelled", "given up", now=NOW)
    assert site.alerts.look_at_node() == ["dead-letters-pacs"]  # it is not configured, so no longer looked at


def test_an_audit_outbox_that_grows(tmp_path: Path) -> None:
    site = Site(tmp_path, '[audit]\nto = "udp"\nserver = "127.0.0.1:9"\n')
    try:
        assert site.alerts.look_at_node() == []
        with site.catalog._engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO audit_outbox (message_id, event, at, xml) VALUES ('m', '1', {NOW - 901}, '')"
            )
        assert [key.partition("-")[0] for key in site.alerts.look_at_node()] == ["audit"]
    finally:
        site.close()


def test_each_look_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(
        tmp_path, alerts="disk_free_gb = 0\nrefused = 0\nsilent_hours = 0\ndead_letters = false\naway_minutes = 0"
    )
    try:
        fill(monkeypatch, 0.1)
        receive(site.catalog, NOW - 1e6)
        site.catalog.note_refusals([RefusalCount("why", "X", 1000)], NOW)
        site.now += 1e5
        assert site.alerts.look_at_node() == []
    finally:
        site.close()


def test_a_receiver_that_is_away_is_told_later_with_the_same_key(site: Site) -> None:
    site.hook.status = 503
    site.process.failures = 3
    site.alerts.look_at_node()
    assert len(site.told()) == 1
    assert site.told() == []  # not before its pause
    site.now += 11
    site.hook.status = 200
    for to in site.config.notify:
        site.sender.send_due(to)
    (headers, _) = site.hook.came[0]
    assert headers["idempotency-key"].endswith(".hook")
    site.now += 1e4
    site.hook.came.clear()
    assert site.told() == []


def test_what_nobody_takes_is_dropped_in_the_end(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.hook.status = 503
    site.process.failures = 3
    site.alerts.look_at_node()
    site.now += 172_801
    site.told()
    assert "gave up after" in caplog.text
    site.hook.status = 200
    site.now += 1e6
    assert site.told() == []


def test_what_comes_and_goes_is_one_alert(site: Site) -> None:
    site.catalog.note_refusals([RefusalCount("why", "CT9", 1)], NOW)
    for _ in range(50):
        site.process.failures = 3
        site.alerts.look_at_node()
        site.process.failures = 0
        site.now += 120
        site.alerts.look_at_node()
    assert [event for event, _ in site.told()] == ["alert"]
    site.now += 600
    site.alerts.look_at_node()
    assert [event for event, _ in site.told()] == ["alert-over"]


def test_a_clock_that_is_set_back_holds_no_message_up(site: Site) -> None:
    site.now += 86_400
    site.process.failures = 3
    assert len(site.alerts.look_at_node()) == 1
    site.catalog.note_refusals([RefusalCount("why", "CT9", 100)], site.now)
    site.now -= 86_400
    assert [event for event, _ in site.told()] == ["alert"]
    assert site.alerts.look_at_node() == []  # refusals of tomorrow do not count today


def test_messages_to_a_receiver_that_is_gone_are_not_kept_for_ever(site: Site) -> None:
    site.process.failures = 3
    site.alerts.look_at_node()
    site.now += 33 * 86_400
    site.alerts.look_at_node()
    assert site.told() == []


# Several machines on one database


class Another:
    """A second machine on the same database."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch, folder: Path, alerts: str) -> None:
        path = folder / "second.toml"
        whole = (folder / "ae_config.toml").read_text()
        path.write_text(whole.replace("[alerts]\n", f"[alerts]\n{alerts}\n"))
        self.process = Process()
        with monkeypatch.context() as patched:
            patched.setattr("socket.gethostname", lambda: "second")
            self.alerts = Alerts(config.load(path), site.catalog, [self.process], lambda: site.now, lambda: site.now)


def test_two_machines_tell_what_is_the_databases_once_and_each_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Another(site, monkeypatch, tmp_path, "")
    receive(site.catalog, NOW - 96 * 3600)
    site.process.failures = second.process.failures = 3
    first_keys, second_keys = site.alerts.look_at_node(), second.alerts.look_at_node()
    assert "silent-96" in first_keys and "silent-96" not in second_keys
    assert second_keys == ["worker-0@second"]
    assert len(site.told()) == 3


def test_machines_with_other_marks_do_not_end_each_others_alerts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Another(site, monkeypatch, tmp_path, "silent_hours = 1\nrefused = 0\naway_minutes = 0")
    receive(site.catalog, NOW - 7200)
    assert second.alerts.look_at_node() == ["silent-1"]
    for _ in range(20):
        site.now += 60
        assert site.alerts.look_at_node() == [] and second.alerts.look_at_node() == []


def test_the_alerts_of_a_machine_that_is_gone_end(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = Another(site, monkeypatch, tmp_path, "")
    second.process.failures = 3
    assert second.alerts.look_at_node() == ["worker-0@second"]
    site.now += 86_000
    assert site.alerts.look_at_node() == [] and second.alerts.look_at_node() == []  # it still looks
    site.now += 86_000
    assert site.alerts.look_at_node() == []
    site.now += 1000
    assert site.alerts.look_at_node() == ["worker-0@second"]
    assert "second has not looked for a day" in site.told()[-1][1]


# Certificates


def test_a_certificate_near_its_end_is_told_by_one_event_and_its_renewal_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok = False
    path = tmp_path / "node.pem"
    table = f'[tls]\ncertificate = "{path}"\nkey = "{path}"\nca_file = "{path}"\n'
    site = Site(tmp_path, table)
    try:
        monkeypatch.setattr(
            conditions, "inspect", lambda _files, _at: [TlsFinding(path, ok=ok, text="our certificate expires")]
        )
        (key,) = site.alerts.look_at_node()
        assert key.startswith("certificate-")
        assert site.told() == []  # the webhook asks for "certificate", and is told step by step
        assert len(site.mails.mails) == 1  # this one for "alert" only
        ok = True
        assert over(site) == [key]
        assert [event for event, _ in site.told()] == ["alert-over"]
        assert len(site.mails.mails) == 2
    finally:
        site.close()


# The database


def test_a_database_that_is_away_is_told_without_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise DatabaseError("no connection")

    with monkeypatch.context() as patched:
        patched.setattr(site.catalog, "answers", away)
        site.alerts.look_at_database()
        site.now += 599
        site.alerts.look_at_database()
        assert not site.hook.came
        site.start()  # nobody starts counting anew
        site.now += 1
        site.alerts.look_at_database()
        site.alerts.look_at_database()
        assert site.told() == [
            ("alert", "the database has not answered for 10 minutes: nothing is received or delivered")
        ]
        assert len(site.mails.mails) == 1
    site.start()
    site.alerts.look_at_database()
    site.alerts.look_at_database()
    assert [event for event, _ in site.told()] == ["alert-over"]
    assert len(site.mails.mails) == 2
    assert not (site.config.storage.state / FILE).exists()


def test_a_short_trouble_of_the_database_is_nobodys(site: Site) -> None:
    away = DatabaseAway(site.config, lambda: site.now)
    away.is_away()
    site.now += 60
    away.answers(site.catalog)
    assert site.told() == []
    assert not (site.config.storage.state / FILE).exists()


def test_a_receiver_that_is_away_too_gets_the_database_alert_later(site: Site) -> None:
    away = DatabaseAway(site.config, lambda: site.now)
    away.is_away()
    site.now += 600
    site.hook.status = 500
    away.is_away()
    site.hook.status = 200
    away.is_away()
    away.is_away()
    assert len(site.hook.came) == 2 and len(site.mails.mails) == 1
    site.hook.came.clear()
    site.key.unlink()  # nothing can be signed
    away.answers(site.catalog)
    assert site.told() == []
    site.key.write_text("secret")
    site.now += 3600
    assert [event for event, _ in site.told()] == ["alert-over"]
    assert not (site.config.storage.state / FILE).exists()


def test_who_was_not_told_that_the_database_is_away_is_not_told_that_it_is_back(site: Site) -> None:
    away = DatabaseAway(site.config, lambda: site.now)
    away.is_away()
    site.now += 600
    site.hook.status = 500
    away.is_away()
    site.hook.status = 200
    site.hook.came.clear()
    away.answers(site.catalog)
    assert site.told() == []
    assert len(site.mails.mails) == 2


def test_a_damaged_file_is_no_reason_to_fail(site: Site) -> None:
    (site.config.storage.state / FILE).write_text("{")
    DatabaseAway(site.config, lambda: site.now).is_away()
    assert json.loads((site.config.storage.state / FILE).read_text())["since"] == NOW
