"""Commands that open the catalogue and the queue close what they have opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomnode.config import Config
from dicomnode.errors import SpoolError
from dicomnode.operations import jobs, looking
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.small_node import STUDY, SmallNode


@pytest.mark.parametrize(
    "command",
    [
        lambda config: jobs.retry(config, STUDY, None),
        lambda config: jobs.cancel(config, STUDY, None),
        lambda config: jobs.overview(config, None, 1),
    ],
    ids=["retry", "cancel", "list"],
)
def test_a_queue_that_does_not_open_leaves_no_catalogue_open(
    command: Callable[[Config], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = SmallNode(tmp_path / "node")
    (node.config.storage.state / "queue.sqlite").touch()
    opened: list[Catalog] = []
    for how in ("open", "reading"):
        real = getattr(Catalog, how)
        monkeypatch.setattr(Catalog, how, lambda *a, real=real: opened.append(real(*a)) or opened[-1])
    for module in (jobs, looking):
        monkeypatch.setattr(module, "Queue", refuse)
    with pytest.raises(SpoolError, match="no queue today"):
        command(node.config)
    assert [catalog._closed.is_set() for catalog in opened] == [True]
    node.catalog.close()


def refuse(_config: Config) -> None:
    raise SpoolError("no queue today")
