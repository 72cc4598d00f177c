"""A study of a cohort: analysed by the rules at research priority, but its results and images stay until asked for."""

import time
from collections import Counter
from pathlib import Path

from dicomnode.workflows.calls import study_priority
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid

UID = study_uid("a")
RULES = """
[[route]]
name = "both"
analyse = "plain"
priority = "stat"
forward_to = ["pacs"]
[[profile]]
name = "plain"
radiomics = false
[profile.selection]
min_slices = 10
"""


def test_kept_then_sent(data: Path, tmp_path: Path) -> None:
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination(), more=RULES)
    with running(pacs, station):
        catalog = station.catalog
        assert catalog.begin_bulk(UID, "retrieve", keep=True, patient="", now=time.time())
        station.start_worker()
        station.send(files)
        catalog.end_bulk(UID, time.time())
        began = time.time()
        station.settle(UID)
        shown = station.ended(UID, 1, "analysed")
        assert shown["routing"]["taken_by"] == ["both"] and shown["deliveries"] == [] and pacs.came == []
        (workflow,) = station.queue._client.list_workflows(workflow_ids=[f"study/{UID}/1/1"])
        stat, research = (study_priority(p, began, station.config.routing) for p in ("stat", "research"))
        assert stat < research <= (workflow.priority or 0)
        assert [s.study_uid for s in catalog.releasable(2e9, 0.0)] == [UID]

        assert catalog.send_bulk(UID) and catalog.reopen(UID)
        assert station.settle(UID) == 2
        station.ended(UID, 2, "delivered")
        assert Counter(d.Modality for d in pacs.held()) == {"CT": len(files), "SEG": 1, "SR": 1, "OT": 1}
