"""Three AE titles on one port and four destinations, all of them processes of other people or of our own: who got what.

to NODE      chest CT: analysed, results to the PACS and the viewer, originals to the archive
to TRIAL     originals to the research archive only, nothing analysed
to HOLD      held; released by hand: results to the PACS only
"""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.faults.station import Pacs
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.processes import listens
from tests.helpers.receivers import Webhook
from tests.helpers.running import Node
from tests.helpers.waiting import until

RULES = """
[routing]
ae_titles = ["TRIAL", "HOLD"]
otherwise = "ignore"
[[profile]]
name = "plain"
radiomics = false
bundle = ""
[[route]]
name = "trial"
called_ae = ["TRIAL"]
forward_to = ["research"]
priority = "research"
[[route]]
name = "hold"
called_ae = ["HOLD"]
hold = true
analyse = "plain"
results_to = ["pacs"]
[[route]]
name = "chest"
called_ae = ["DICOMNODE"]
when = [
  { keyword = "Modality", equals = "CT", series = "any" },
  { keyword = "SliceThickness", at_most = 10, series = "any" },
]
analyse = "plain"
results_to = ["pacs", "viewer"]
forward_to = ["archive"]
priority = "stat"
"""


@dataclass
class Site:
    """The node and its four destinations; `research` is DCMTK's storescp, which writes into a folder."""

    node: Node
    pacs: Pacs
    viewer: Pacs
    archive: Pacs
    research: Path
    hook: Webhook

    def held(self) -> dict[str, list[Dataset]]:
        """What each destination has."""
        research = [pydicom.dcmread(p) for p in sorted(self.research.iterdir())]
        return {
            "pacs": self.pacs.held(),
            "viewer": self.viewer.held(),
            "archive": self.archive.held(),
            "research": research,
        }


@pytest.fixture
def site(tmp_path: Path, peer: Callable[[str, str], str]) -> Iterator[Site]:
    pacs, viewer, archive = (Pacs(tmp_path / n.lower(), ae_title=n) for n in ("PACS", "VIEWER", "ARCHIVE"))
    research, port = tmp_path / "research", free_port()
    research.mkdir()
    dcmtk = subprocess.Popen([peer("storescp", "dcmtk"), "-aet", "RESEARCH", "-od", str(research), "+uf", str(port)])
    until("storescp listens", lambda: listens(dcmtk.pid, port), 30)
    hook = Webhook()
    (tmp_path / "key").write_text("secret")
    for one in (pacs, viewer, archive):
        one.start()
    tables = pacs.destination() + viewer.destination("viewer", 'objects = ["summary"]') + archive.destination("archive")
    tables += f'[[destination]]\nname = "research"\nae_title = "RESEARCH"\nhost = "127.0.0.1"\nport = {port}\n'
    tables += (
        f'[[notify]]\nname = "hook"\nkind = "webhook"\nevents = ["delivered", "held"]\nurl = "{hook.url}"\n'
        f"secret_file = {json.dumps(str(tmp_path / 'key'))}\n"
    )
    node = Node(tmp_path / "node", tables, extra=RULES).start()
    yield Site(node, pacs, viewer, archive, research, hook)
    node.stop()
    for one in (pacs, viewer, archive):
        one.stop()
    hook.close()
    dcmtk.terminate()
    dcmtk.wait(10)


def send(storescu: str, node: Node, called: str, folder: Path) -> int:
    command = [storescu, "-R", "+sd", "-aet", "CT1", "-aec", called, "127.0.0.1", str(node.port), str(folder)]
    return subprocess.run(command, env={"TCP_NODELAY": "1"}, check=False, timeout=240).returncode


@pytest.mark.slow
def test_three_ae_titles_and_four_destinations(
    data: Path, site: Site, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    storescu, node = peer("storescu", "dcmtk"), site.node
    source = data / "chest_tiny_cip" / "ct-64Dicom"
    files = {name: make_study(source, tmp_path / "sent" / name, name, every=2) for name in ("node", "trial", "hold")}
    uid = {name: study_uid(name) for name in files}
    assert node.cli("check").returncode == 0
    for name, called in (("hold", "HOLD"), ("trial", "TRIAL"), ("node", "DICOMNODE")):
        assert send(storescu, node, called, tmp_path / "sent" / name) == 0
    assert send(storescu, node, "SOMEBODY", tmp_path / "sent" / "node") != 0

    assert node.ended(uid["trial"]) == "delivered", node.show(uid["trial"])
    assert node.ended(uid["node"]) == "delivered", node.show(uid["node"])
    assert node.ended(uid["hold"]) == "held"
    got = site.held()
    assert Counter((d.StudyInstanceUID, d.Modality) for d in got["pacs"]) == {
        (uid["node"], "SEG"): 1, (uid["node"], "SR"): 1, (uid["node"], "OT"): 1,
    }  # fmt: skip
    assert Counter((d.StudyInstanceUID, d.Modality) for d in got["viewer"]) == {(uid["node"], "OT"): 1}
    assert_originals(got["archive"], files["node"])
    assert_originals(got["research"], files["trial"])

    shown = node.show(uid["trial"])
    assert shown["routing"]["taken_by"] == ["trial"]
    assert shown["routing"]["action"]["analyse"] is None
    assert not shown["results"]
    table = node.cli("jobs", "show", uid["node"]).stdout
    for words in (
        "matched by chest: analysed with 'plain' (stat)",
        "originals forwarded to archive",
        "NO: called AE is",
    ):
        assert words in " ".join(table.split()), table

    released = node.cli("jobs", "release", uid["hold"])
    assert released.returncode == 0, released.stderr
    assert until("delivered", lambda: node.jobs()[uid["hold"]] == "delivered", 120)
    got = site.held()
    assert Counter(d.Modality for d in got["pacs"] if d.StudyInstanceUID == uid["hold"]) == {"SEG": 1, "SR": 1, "OT": 1}
    assert len(got["viewer"]) == 1
    assert len(got["archive"]) == len(files["node"])

    def told() -> set[tuple[str, str]]:
        bodies = [json.loads(body) for _, body in site.hook.came]
        return {(b["study_uid"], b["event"]) for b in bodies}

    expected = {(uid[name], "delivered") for name in uid} | {(uid["hold"], "held")}
    until("all told", lambda: told() == expected, 30)
    assert "TEST-" not in node.log()  # the patients' IDs


def assert_originals(got: list[Dataset], sent: list[Path]) -> None:
    """The very images that were sent, each once and unchanged."""
    expected = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, sent)}
    assert len(got) == len(expected)
    for dataset in got:
        assert dataset == expected[dataset.SOPInstanceUID]
