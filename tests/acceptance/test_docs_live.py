"""«First day with Orthanc», as it is typed: each block of the page in bash, with a real Orthanc, on other ports."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from dicomnode import config
from dicomnode.store.records import Study
from tests.conftest import ROOT
from tests.helpers.doc_blocks import blocks_of, lines_of
from tests.helpers.ports import free_port
from tests.helpers.running import studies_of
from tests.helpers.waiting import until
from tests.helpers.web import answers, http_client

PAGE = ROOT / "docs" / "admin" / "first-day-orthanc.md"
# Two nodes start, and the demo analyses a whole chest; its own waits have their ends.
pytestmark = pytest.mark.timeout(1800)
#: Ports of the page: others here, so that tests may run beside each other.
PORTS = ("4242", "8042", "11112", "8480")


class Day:
    """A reader of the page, in a copy of the repository's folder as far as the page needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, {port: str(free_port()) for port in PORTS}
        self.running: list[subprocess.Popen[bytes]] = []
        (folder / "deploy").mkdir(parents=True)
        (folder / "weights").symlink_to(ROOT / "weights")
        for name in ("ae_config.toml", "deploy/orthanc.json"):
            text = self.with_ports((ROOT / name).read_text("utf-8"))
            (folder / name).write_text(re.sub(r"minimum_free_gb = 2.0", "minimum_free_gb = 0.1", text), "utf-8")
        paths = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
        self.environment = {**os.environ, "PATH": ":".join(paths), "PYTHONPATH": str(ROOT), "HOME": str(folder)}

    def with_ports(self, text: str) -> str:
        return re.sub(r"\b(4242|8042|11112|8480)\b", lambda found: self.ports[found[1]], text)

    @property
    def pacs(self) -> str:
        return f"http://127.0.0.1:{self.ports['8042']}"

    def start(self, text: str) -> None:
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.with_ports(text)}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)

    def type(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.with_ports(text)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        log = self.folder / "processes.log"
        assert done.returncode == 0, (
            f"{text}\n{done.stdout}\n{done.stderr}\n{log.read_text('utf-8')[-3000:] if log.exists() else ''}"
        )
        return done.stdout

    def close(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(120)


@pytest.fixture
def day(tmp_path: Path, peer: Callable[[str, str], str]) -> Iterator[Day]:
    peer("Orthanc", "orthanc")
    peer("curl", "curl")
    reader = Day(tmp_path / "dicomnode")
    yield reader
    reader.close()


def objects(day: Day) -> Counter[str]:
    """Modality of every object that Orthanc holds."""
    with http_client(day.pacs, timeout=60) as client:
        files = (client.get(f"/instances/{one}/file").content for one in client.get("/instances").json())
        return Counter(str(pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True).Modality) for file in files)


def studies(day: Day) -> list[Study]:
    return studies_of(config.load(day.folder / "ae_config.toml"))


def are_over(states: list[str]) -> bool:
    return bool(states) and set(states) <= {"delivered", "refused"}


def test_the_page_from_beginning_to_end(day: Day) -> None:
    blocks = list(blocks_of(PAGE))
    assert [b.language for b in blocks].count("sh") > 6
    seen: Counter[str] = Counter()
    for block in blocks:
        if block.language != "sh" or lines_of(block.text)[0].startswith("sudo"):
            continue
        if block.notes.get("run") == "in the background":
            day.start(block.text)
            if "Orthanc" in block.text:
                until("Orthanc that answers", lambda: answers(f"{day.pacs}/system"), 60)
            else:
                log = day.folder / "processes.log"
                until("a node that listens", lambda log=log: "listening as" in log.read_text("utf-8"), 60)  # type: ignore[misc]
        elif block.notes.get("wait"):
            until("delivered", lambda: are_over([study.state for study in studies(day)]), 240)
            assert are_over([row["state"] for row in json.loads(day.type(block.text))])
            seen = objects(day)
        else:
            shown = day.type(block.text)
    assert seen["SEG"] == 1 and seen["SR"] == 2 and seen["OT"] == 1 and seen["CT"] > 200
    assert '"Modality" : "SEG"' in shown


def test_orthanc_sends_by_the_script_of_the_page(day: Day, peer: Callable[[str, str], str]) -> None:
    """Every CT image that comes is sent on at once, and nothing that the node sent."""
    (block,) = [one for one in blocks_of(PAGE) if one.language == "lua"]
    (day.folder / block.notes["write"]).write_text(block.text, "utf-8")
    settings = json.loads((day.folder / "deploy" / "orthanc.json").read_text("utf-8"))
    settings["LuaScripts"] = [str(day.folder / block.notes["write"])]
    (day.folder / "deploy" / "orthanc.json").write_text(json.dumps(settings), "utf-8")
    text = (day.folder / "ae_config.toml").read_text("utf-8")
    # What forwards the images back to the PACS would make them go round without the condition.
    text += '\n[[route]]\nname = "round"\nforward_to = ["pacs"]\n'
    (day.folder / "ae_config.toml").write_text(text, "utf-8")
    day.start("Orthanc deploy/orthanc.json")
    until("Orthanc that answers", lambda: answers(f"{day.pacs}/system"), 60)
    day.start("dicomnode serve --config ae_config.toml")
    until("a node that listens", lambda: "listening as" in (day.folder / "processes.log").read_text("utf-8"), 60)
    make_small_series(day.folder / "series")
    day.type(f"{peer('storescu', 'dcmtk')} -aec ORTHANC -aet CT1 +sd 127.0.0.1 4242 series")
    until("its images at the node", lambda: sum(study.instances for study in studies(day)) == 6, 120)
    until("forwarded", lambda: {study.state for study in studies(day)} == {"delivered"}, 120)
    (row,) = json.loads(day.type("dicomnode jobs list --json"))
    assert (row["generation"], row["instances"], row["state"]) == (1, 6, "delivered")
    log = (day.folder / "processes.log").read_text("utf-8")
    assert "resent" not in log


def make_small_series(folder: Path) -> None:
    """Six images of the demo's phantom, of which no analysis is asked."""
    from dicomnode.demo import study

    study.write(folder / "all")
    folder.mkdir(exist_ok=True)
    for path in sorted((folder / "all" / "2-axial").glob("*.dcm"))[:6]:
        shutil.move(path, folder / path.name)
    shutil.rmtree(folder / "all")
