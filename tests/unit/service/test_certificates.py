"""Who is told that a certificate expires: once at each step, by the receivers that asked."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from dicomnode import config
from dicomnode.outbound.notify.message import kind, message
from dicomnode.service import certificates
from dicomnode.service.clock import Housekeeping
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Event
from dicomnode.workflows.queue import Queue
from tests.helpers.certificates import Authority, toml

DAY = 86_400.0
NOW = datetime.now(UTC).timestamp()
NOTIFY = '[[notify]]\nname = "{}"\nkind = "webhook"\nurl = "https://h"\nsecret_env = "X"\n{}'


class Told:
    """A queue that keeps what is to be told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []

    def notify(self, name: str, event: Event) -> None:
        self.events.append((name, event))


@pytest.fixture
def loaded(tmp_path: Path) -> config.Config:
    files = Authority(tmp_path / "ca").files("node", days=100)
    path = tmp_path / "ae_config.toml"
    path.write_text(toml(files) + NOTIFY.format("it", "") + NOTIFY.format("results", 'events = ["delivered"]\n'))
    return config.load(path)


@pytest.mark.parametrize(("in_days", "steps"), [(60, 0), (71, 1), (90, 2), (98.5, 3)])
def test_each_step_has_one_event(loaded: config.Config, in_days: float, steps: int) -> None:
    days = [60 + 0.25 * n for n in range(int((in_days - 60) * 4) + 1)]
    told = {e.event_id for day in days for e in certificates.events(loaded, NOW + day * DAY)}
    assert len(told) in ({0} if not steps else range(1, steps + 2))
    assert len(told) >= min(steps, 1)


def test_those_who_asked_are_told_once(loaded: config.Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = Told()
    loaded.storage.state.mkdir(parents=True)
    catalog = Catalog.open(loaded.catalog_url, loaded.storage.state)
    clock = Housekeeping(loaded, catalog, cast(Queue, queue), lambda: NOW + 80 * DAY)
    with caplog.at_level(logging.WARNING):
        assert clock.tell_certificates() == 1
        assert clock.tell_certificates() == 0
    catalog.close()
    ((name, event),) = queue.events
    assert name == "it" and "expires on" in str(event.reason)
    assert caplog.text.count("expires on") == 1
    told = message(event, loaded.notify[0], "NODE", {})
    assert told.subject == "dicomnode: certificate of NODE"
    assert "expires on" in told.text and "study" not in told.text
    assert kind(event) == "certificate"


def test_what_cannot_be_read_is_told_once_a_week(loaded: config.Config) -> None:
    assert loaded.tls is not None
    loaded.tls.key.unlink()
    one = {e.event_id for e in certificates.events(loaded, NOW)}
    assert one == {e.event_id for e in certificates.events(loaded, NOW)}
    assert len(one) == 1
    assert one != {e.event_id for e in certificates.events(loaded, NOW + 8 * DAY)}
