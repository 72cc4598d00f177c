"""Studies that are analysed once more: behind all others, as a new generation, and only what has changed is sent."""

import time
from pathlib import Path

from dicomnode.workflows.calls import study_priority
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid

UID = study_uid("a")


def test_an_unchanged_result_is_not_sent_again_and_a_changed_one_names_the_one_before(
    data: Path, tmp_path: Path
) -> None:
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination())
    with running(pacs, station):
        station.start_worker()
        station.send(files)
        station.settle(UID)
        station.ended(UID, 1, "delivered")
        sent = len(pacs.came)
        began = time.time()
        station.catalog.ask_reanalysis([UID], 3600.0, began)
        assert station.clock.take_up_reanalyses() == UID
        assert station.clock.take_up_reanalyses() is None
        assert station.settle(UID) == 2
        shown = station.ended(UID, 2, "delivered")
        assert len(pacs.came) == sent
        assert {d["text"] for d in shown["deliveries"]} == {"unchanged since generation 1"}
        (workflow,) = station.queue._client.list_workflows(workflow_ids=[f"study/{UID}/2/1"])
        first, last = (study_priority("research", at, station.config.routing) for at in (began, time.time()))
        assert first <= (workflow.priority or 0) <= last
        (usual,) = station.queue._client.list_workflows(workflow_ids=[f"study/{UID}/1/1"])
        assert not usual.priority
