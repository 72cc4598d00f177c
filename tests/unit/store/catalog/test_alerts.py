"""Alerts are raised once and ended once, whoever looks; their messages are one sender's at a time."""

from collections.abc import Sequence

import pytest

from dicomnode.store.catalog.alerts import PERIOD_S, Alert, RefusalCount
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

DISK = Alert("disk-spool@here", "here", "1 GB free", 1000.0)


def settled(catalog: Catalog, study_uid: str, held: str | None = None, now: float = 110.0) -> None:
    catalog.record(Instance(f"{study_uid}.1", "1.9", study_uid, "1.5", "/x", "0" * 64, 1, 100.0, None, "a" * 64))
    catalog.settle(study_uid, now, held=held)


def test_an_alert_is_raised_once_and_ended_once(catalog: Catalog) -> None:
    assert catalog.raise_alert(DISK, ["it", "duty"])
    again = Alert(DISK.key, "there", "0.5 GB free", 1001.0)
    assert not catalog.raise_alert(again, ["it"])  # another node's look, or one after a restart
    assert catalog.alerts() == [DISK]
    assert catalog.end_alert(DISK, "over", ["it"], 1100.0)
    assert not catalog.end_alert(DISK, "over", ["it"], 1101.0)
    assert catalog.alerts() == []
    (began, ended) = catalog.due_alert_messages("it", 2000.0, 60.0)
    assert (began.state, began.text, ended.state) == ("alert", "1 GB free", "alert-over")
    (other,) = catalog.due_alert_messages("duty", 2000.0, 60.0)
    assert other.event_id == began.event_id  # one event, told to two
    assert catalog.raise_alert(Alert(DISK.key, "here", "again", 3000.0), ["it"])
    ids = {m.event_id for m in catalog.due_alert_messages("it", 3000.0, 60.0)}
    assert len(ids | {began.event_id}) == 4 - 1


def test_a_message_is_one_senders_until_it_is_taken_or_put_off(catalog: Catalog) -> None:
    catalog.raise_alert(DISK, ["it"])
    (message,) = catalog.due_alert_messages("it", 1000.0, 60.0)
    assert catalog.due_alert_messages("it", 1059.0, 60.0) == []
    (after_a_crash,) = catalog.due_alert_messages("it", 1061.0, 60.0)
    assert after_a_crash == message
    catalog.put_off_alert_message(message, 1500.0)
    assert catalog.due_alert_messages("it", 1499.0, 60.0) == []
    (again,) = catalog.due_alert_messages("it", 1500.0, 60.0)
    assert again.attempts == 1
    catalog.forget_alert_message(again)
    assert catalog.due_alert_messages("it", 9999.0, 60.0) == []


def test_refusals_are_counted_by_reason_and_forgotten(catalog: Catalog) -> None:
    def note(counts: Sequence[RefusalCount], now: float) -> None:
        catalog.note_refusals(counts, now)

    note([RefusalCount("unknown", "X at 192.0.2.1", 3), RefusalCount("busy", "Y at 192.0.2.2", 1)], 10 * PERIOD_S)
    note([RefusalCount("unknown", "Z at 192.0.2.3", 2)], 10 * PERIOD_S + 1)
    note([RefusalCount("unknown", "Z at 192.0.2.3", 4)], 12 * PERIOD_S)
    counted = catalog.refusals_between(10 * PERIOD_S, 12 * PERIOD_S)
    assert [(one.why, one.count) for one in counted] == [("unknown", 9), ("busy", 1)]
    assert [one.count for one in catalog.refusals_between(11 * PERIOD_S, 12 * PERIOD_S)] == [4]
    catalog.forget_refusals(12 * PERIOD_S, 12 * PERIOD_S)
    assert [one.count for one in catalog.refusals_between(0, 1e6)] == [4]


def test_dead_letters_are_those_of_failed_jobs(catalog: Catalog) -> None:
    settled(catalog, "1.2")
    assert catalog.dead_letters() == {}
    for name in ("seg", "summary"):
        catalog.plan_delivery("1.2", 1, "pacs", name, "1.9", f"2.{name}", "/out", now=120.0)
        catalog.mark_delivery("1.2", 1, "pacs", name, "rejected", status=1, text="no", attempts=1, now=130.0)
    catalog.set_state("1.2", 1, "failed", "no", now=140.0)
    assert catalog.dead_letters() == {"pacs": 2}
    catalog.set_state("1.2", 1, "cancelled", "given up", now=150.0)
    assert catalog.dead_letters() == {}
    assert catalog.last_received(1000.0) == 100.0


def test_a_notice_counts_until_the_job_changes(catalog: Catalog) -> None:
    settled(catalog, "1.2", held="a rule")
    assert catalog.set_aside("held", 109.0) == []
    assert catalog.set_aside("cancelled", 111.0) == []
    ((study, noticed_at),) = catalog.set_aside("held", 111.0)
    assert noticed_at is None
    catalog.notice_removal(study, "goes soon", 200.0)
    catalog.notice_removal(study, "goes soon", 201.0)  # another node, at the same moment
    assert catalog.set_aside("held", 300.0) == [(study, 200.0)]
    assert [e.state for e in catalog.events(10)] == ["held", "expiring"]
    catalog.set_state("1.2", 1, "cancelled", "manually", now=250.0)
    ((_, noticed_at),) = catalog.set_aside("cancelled", 300.0)
    assert noticed_at is None
    catalog.notice_removal(study, "goes soon", 310.0)
    assert [e.state for e in catalog.events(10)].count("expiring") == 2


@pytest.mark.parametrize("state", ["queued", "held", "cancelled"])
def test_only_what_has_ended_is_taken_up_for_reanalysis(catalog: Catalog, state: str) -> None:
    settled(catalog, "1.2")
    catalog.set_state("1.2", 1, state, None, now=120.0)  # type: ignore[arg-type]
    catalog.ask_reanalysis(["1.2"], 60.0, 200.0)
    assert catalog.take_reanalysis(200.0) is None
    assert catalog.reanalyses_waiting() == 0


def test_reanalyses_come_one_by_one_in_their_pace(catalog: Catalog) -> None:
    for uid in ("1.2", "1.3", "1.4"):
        settled(catalog, uid)
        catalog.set_state(uid, 1, "delivered", None, now=120.0)
    catalog.ask_reanalysis(["1.3", "1.2"], 60.0, 200.0)
    assert catalog.take_reanalysis(200.0) == "1.2"
    assert catalog.take_reanalysis(259.0) is None
    assert catalog.take_reanalysis(260.0) == "1.3"
    assert catalog.take_reanalysis(999.0) is None
    study = catalog.study("1.2")
    assert study is not None
    assert (study.state, study.generation) == ("receiving", 1)
    assert catalog.is_reanalysis("1.2", 2)
    assert not catalog.is_reanalysis("1.2", 1)
    assert not catalog.is_reanalysis("1.4", 2)


def test_those_that_wait_can_be_taken_off_the_list(catalog: Catalog) -> None:
    for uid in ("1.2", "1.3"):
        settled(catalog, uid)
        catalog.set_state(uid, 1, "refused", None, now=120.0)
    catalog.ask_reanalysis(["1.2", "1.3"], 60.0, 200.0)
    assert catalog.take_reanalysis(200.0) == "1.2"
    assert catalog.forget_reanalyses() == 1
    assert catalog.take_reanalysis(999.0) is None
    assert catalog.is_reanalysis("1.2", 2)


def test_a_late_order_is_taken_up_once(catalog: Catalog) -> None:
    settled(catalog, "1.2")
    assert not catalog.reopen_for_order("1.2", "k", 1.0)  # its results are not made yet
    catalog.set_state("1.2", 1, "delivered", None, now=120.0)
    assert catalog.reopen_for_order("1.2", "k", 130.0)
    catalog.settle("1.2", 140.0, held=None)
    catalog.set_state("1.2", 2, "delivered", None, now=150.0)
    assert not catalog.reopen_for_order("1.2", "k", 160.0)
    assert catalog.reopen_for_order("1.2", "another", 170.0)
    catalog.settle("1.2", 180.0, held=None)
    catalog.set_state("1.2", 3, "delivered", None, now=190.0)
    catalog.forget_late_orders(131.0)
    assert catalog.reopen_for_order("1.2", "k", 200.0)


def test_the_jobs_of_a_choice(catalog: Catalog) -> None:
    for number, uid in enumerate(("1.2", "1.3", "1.4")):
        settled(catalog, uid)
        catalog.plan_delivery(uid, 1, "pacs", "seg", "1.9", f"2.{number}", "/out", now=120.0)
        catalog.set_state(uid, 1, "failed", None, now=200.0 + number)
    catalog.mark_delivery("1.3", 1, "pacs", "seg", "delivered", status=0, text=None, attempts=1, now=210.0)

    def chosen(**filters: object) -> list[str]:
        return [job.study_uid for job in catalog.newest_jobs(["failed"], **filters)]  # type: ignore[arg-type]

    assert chosen() == ["1.2", "1.3", "1.4"]
    assert chosen(undelivered_to="pacs") == ["1.2", "1.4"]
    assert chosen(undelivered_to="other") == []
    assert chosen(since=201.0) == ["1.3", "1.4"]
    assert catalog.newest_jobs(["held"]) == []
