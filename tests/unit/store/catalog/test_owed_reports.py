"""Storage commitment reports that the node owes, on both databases."""

from itertools import pairwise

import pytest

from dicomnode.retry import backoff_s
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import OwedReport

ONE = OwedReport("1.2.99", "SCANNER", (("1.2", "1.2.3.1"), ("1.2", "1.2.3.2")))


def _pause(owed: OwedReport, attempt: int) -> float:
    return backoff_s(10.0, 1800.0, attempt, f"{owed.transaction_uid} {owed.requester}")


def test_what_is_owed_comes_due_later_and_later_until_it_is_brought(catalog: Catalog) -> None:
    catalog.owe_report(ONE, now=1000.0)
    assert catalog.due_reports(1005.0) == []  # the first attempt is under way
    assert catalog.due_reports(1010.0) == [ONE]
    assert catalog.due_reports(1010.0) == []  # nobody else is given it
    again = 1010.0 + _pause(ONE, 2)
    assert catalog.due_reports(again - 0.1) == []
    assert catalog.due_reports(again + 0.1) == [ONE]
    catalog.report_brought(ONE)
    assert catalog.due_reports(9e9) == []


def test_requesters_may_use_the_same_transaction_uid(catalog: Catalog) -> None:
    other = OwedReport("1.2.99", "OTHER", (("1.2", "1.2.3.9"),))
    catalog.owe_report(ONE, now=1000.0)
    catalog.owe_report(other, now=1000.0)
    catalog.report_brought(ONE)
    assert catalog.due_reports(1010.0) == [other]


def test_asked_again_it_is_new(catalog: Catalog) -> None:
    catalog.owe_report(ONE, now=1000.0)
    assert catalog.due_reports(1010.0) == [ONE]
    catalog.owe_report(ONE, now=1020.0)
    assert catalog.due_reports(1029.0) == []
    assert catalog.due_reports(1030.0) == [ONE]


def test_pauses_have_a_longest_and_an_end(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    catalog.owe_report(ONE, now=0.0)
    looks = (*range(0, 200, 10), *range(200, 200_000, 100))
    times = [now for now in looks if catalog.due_reports(float(now))]
    pauses = [after - before for before, after in pairwise(times)]
    assert 10 <= pauses[0] <= 30  # 20 s less jitter, seen every 10 s
    assert all(900 <= pause <= 1900 for pause in pauses[10:])  # 1800 s less jitter, seen every 100 s
    assert 172_800 - 1800 <= times[-1] <= 172_800
    assert "gave up storage commitment report 1.2.99 to SCANNER" in caplog.text


def test_a_clock_set_back_does_not_put_it_off(catalog: Catalog) -> None:
    catalog.owe_report(ONE, now=1e6)
    assert catalog.due_reports(1e3) == [ONE]
    assert catalog.due_reports(1e3 + _pause(ONE, 2) - 0.1) == []
