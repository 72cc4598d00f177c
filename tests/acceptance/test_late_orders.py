"""An order that the RIS lists only after the results went out: a new version of the reports names it."""

import time
from pathlib import Path

import pytest

from tests.acceptance.ris import Peer, Ris, ct_study
from tests.faults.station import Pacs, Station, running

TODAY = time.strftime("%Y%m%d").encode()


@pytest.mark.parametrize("late", [True, False])
def test_a_late_order_makes_a_new_version_where_that_is_configured(
    data: Path, tmp_path: Path, peer: Peer, late: bool
) -> None:
    uid = ct_study(data, tmp_path / "study", "late", PatientID="P1", PatientName="Same^Name")
    ris, pacs = Ris(tmp_path / "ris", peer).start(), Pacs(tmp_path / "pacs")
    pacs.start()
    more = ris.table("late_orders = true" if late else "")
    station = Station(tmp_path / "node", pacs.destination(), more=more)
    with running(ris, pacs, station):
        station.start_worker()
        station.send(sorted((tmp_path / "study").iterdir()))
        station.settle(uid)
        station.ended(uid, 1, "delivered")
        assert station.clock.refresh_worklist() == 0
        (old,) = [d for d in pacs.held(uid) if d.Modality == "SR"]
        assert "ReferencedRequestSequence" not in old

        ris.add(accession=b"A1", study_uid=uid.encode(), patient_id=b"P1", date=TODAY)
        assert station.clock.refresh_worklist() == 1
        study = station.catalog.study(uid)
        assert study is not None
        if not late:
            assert study.state == "delivered"
            return
        assert study.state == "receiving"
        assert station.settle(uid) == 2
        station.ended(uid, 2, "delivered")
        (new,) = [d for d in pacs.held(uid) if d.Modality == "SR" and d.SOPInstanceUID != old.SOPInstanceUID]
        assert [str(r.AccessionNumber) for r in new.ReferencedRequestSequence] == ["A1"]
        named = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert named.ReferencedSOPInstanceUID == old.SOPInstanceUID
        station.clock.refresh_worklist()  # once
        study = station.catalog.study(uid)
        assert study is not None and study.state == "delivered"
