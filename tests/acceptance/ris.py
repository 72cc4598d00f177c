"""A RIS: DCMTK's wlmscpfs with worklist files that dump2dcm makes, and CT studies for its orders."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.waiting import until

AE_TITLE = "RIS"
Peer = Callable[[str, str], str]
#: A worklist file in DCMTK's dump format. Values are bytes: a name stays in whatever character set it was written.
_ITEM = b"""(0008,0005) CS [%(charset)s]
(0008,0050) SH [%(accession)s]
(0008,0090) PN [Referrer^One]
(0010,0010) PN [%(name)s]
(0010,0020) LO [%(patient_id)s]
(0010,0021) LO [%(issuer)s]
(0010,0030) DA [19600102]
(0010,0040) CS [F]
(0020,000d) UI [%(study_uid)s]
(0032,1060) LO [%(description)s]
(0032,1064) SQ
(fffe,e000) -
(0008,0100) SH [24627-2]
(0008,0102) SH [LN]
(0008,0104) LO [CT Chest]
(fffe,e00d) -
(fffe,e0dd) -
(0040,0100) SQ
(fffe,e000) -
(0008,0060) CS [CT]
(0040,0001) AE [CT1]
(0040,0002) DA [%(date)s]
(0040,0003) TM [%(time)s]
(0040,0006) PN
(0040,0007) LO [CT thorax]
(0040,0009) SH [SPS%(accession)s]
(fffe,e00d) -
(fffe,e0dd) -
(0040,1001) SH [RP%(accession)s]
(0040,2016) LO [PLACER%(accession)s]
(0040,2017) LO [FILLER%(accession)s]
"""
_DEFAULTS: Mapping[bytes, bytes] = {
    b"charset": b"ISO_IR 100",
    b"name": b"Same^Name",
    b"issuer": b"HOSP1",
    b"description": b"CT thorax native",
    b"time": b"101500",
}


class Ris:
    """`wlmscpfs` on a folder of its own. `add` orders before or after `start`."""

    def __init__(self, folder: Path, peer: Peer) -> None:
        self.folder, self.port = folder / AE_TITLE, free_port()
        self._program, self._dump2dcm = peer("wlmscpfs", "dcmtk"), peer("dump2dcm", "dcmtk")
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(parents=True)
        (self.folder / "lockfile").touch()

    def add(self, **values: bytes) -> None:
        """One order; `accession` names its file."""
        filled = {**_DEFAULTS, **{k.encode(): v for k, v in values.items()}}
        dump = self.folder.parent / "item.dump"
        dump.write_bytes(_ITEM % filled)
        target = self.folder / f"{values['accession'].decode()}.wl"
        done = subprocess.run([self._dump2dcm, dump, target], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self, *options: str) -> "Ris":
        log = (self.folder.parent / "wlmscpfs.log").open("ab")
        command = [self._program, "-csk", *options, "-dfp", str(self.folder.parent), str(self.port)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        until("the RIS listening", self._listens, 20)
        return self

    def _listens(self) -> bool:
        # /proc tells without connecting: a connection would wait for its `--sleep-before`.
        port = f":{self.port:04X} "
        return any(port in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines()) or any(
            port in line and " 0A " in line for line in Path("/proc/net/tcp6").read_text().splitlines()
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(240)

    def table(self, more: str = "") -> str:
        """The [worklist] table of a node's configuration."""
        return f'[worklist]\nae_title = "{AE_TITLE}"\nhost = "127.0.0.1"\nport = {self.port}\n{more}\n'


def ct_study(data: Path, folder: Path, name: str, **attributes: object) -> str:
    """A small chest CT as a scanner without worklist sends it: no order, no accession number. Its Study UID."""
    for path in make_study(data / "chest_tiny_cip" / "ct-64Dicom", folder, name, every=2):
        ds = pydicom.dcmread(path)
        for keyword in ("AccessionNumber", "RequestAttributesSequence", "IssuerOfPatientID"):
            if keyword in ds:
                del ds[keyword]
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.save_as(path)
    return study_uid(name)


def text_of(report: Dataset) -> str:
    """The sentences of a report."""
    found = [str(i.get("TextValue", "")) for c in report.ContentSequence for i in c.get("ContentSequence", [])]
    return "\n".join(found)
