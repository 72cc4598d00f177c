"""A power cut takes the last commits of SQLite's log. What was acknowledged is still there, and stays what it was."""

import os
from pathlib import Path

from pydicom import dcmread

from tests.helpers.receiving import Receiving
from tests.helpers.scanners import associated, ct


def test_rows_that_a_power_cut_took_are_restored_before_anybody_may_send(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node")
    log = node.config.storage.state / "catalog.sqlite-wal"
    try:
        with associated(node) as association:
            assert association.send_c_store(ct(1)).Status == 0x0000
            on_disk = log.stat().st_size
            for number in (2, 3, 4):
                assert association.send_c_store(ct(number)).Status == 0x0000
            node.kill()
        os.truncate(log, on_disk)
        (node.config.storage.state / "catalog.sqlite-shm").unlink()
        for path in node.config.storage.spool.rglob("*.dcm"):
            os.utime(path, (path.stat().st_mtime - 60,) * 2)  # a machine takes its time to start again
        assert [one.sop_instance_uid for one in node.instances()] == ["1.2.3.1"]
        node.start()
        assert "3 images recorded again" in node.log()
        with associated(node) as association:
            assert association.send_c_store(ct(3, PatientName="Other^Name")).Status == 0xC001
            assert association.send_c_store(ct(4)).Status == 0x0000
        instances = {one.sop_instance_uid: one for one in node.instances()}
        assert sorted(instances) == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"]
        assert dcmread(instances["1.2.3.3"].path).PatientName == "Secret^Name"
        quarantine = node.config.storage.spool / "quarantine"
        assert [dcmread(path).PatientName for path in quarantine.glob("*.dcm")] == ["Other^Name"]
    finally:
        node.kill()
