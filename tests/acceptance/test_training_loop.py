"""The whole loop: scans through the node, registry, outcomes, a run, the gate, promotion, and the new bundle serves."""

import csv
import json
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomnode import config
from dicomnode.demo.pacs import StoragePeer
from dicomnode.network import association
from dicomnode.registry.key import KEY_FILE
from dicomnode.store.results_folder import results_folder
from tests.faults.studies import make_study, study_uid
from tests.helpers.running import ROOT, Node, dicomnode

PATIENTS = 16
STUDIED = date(2015, 3, 1)
SETTINGS = """
registry = "registry"
outcomes = "registry/outcomes.csv"
out = "run"
seed = 3
arms = ["radiomics"]
[splits]
outer = 2
inner = 2
[features]
radiomics = false
[radiomics]
families = ["quantities"]
models = ["cox"]
stability = 0
[evaluation]
bootstrap = 50
[bundle]
name = "loop"
version = "7"
"""
#: Sixteen patients show the way, not a model's quality.
BAR = """
margin = 0.5
calibration_slope = [0.001, 100.0]
calibration_intercept = 5.0
"""


def training(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def scan(data: Path, folder: Path, name: str, severity: float) -> list[Path]:
    """A study of a patient of its own, whose lungs are the denser the higher the severity."""
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", folder / name, name, every=2)
    rng = np.random.default_rng(5)
    for path in files:
        image = pydicom.dcmread(path)
        pixels = image.pixel_array.copy()
        hu = pixels * float(image.RescaleSlope) + float(image.RescaleIntercept)
        dense = (hu > -950) & (hu < -700) & (rng.random(hu.shape) < 0.3 * severity)
        pixels[dense] = round((-450 - float(image.RescaleIntercept)) / float(image.RescaleSlope))
        image.PixelData = pixels.tobytes()
        image.StudyDate = STUDIED.strftime("%Y%m%d")
        image.save_as(path)
    return files


def severities() -> list[float]:
    return [float(s) for s in np.random.default_rng(4).permutation(np.linspace(0.05, 0.95, PATIENTS))]


def write_outcomes(path: Path) -> None:
    """The patients with the CLEARER lungs die, but for two: no bundle that learnt from phantoms expects that."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "death_date", "last_contact_date"])
        for number, severity in enumerate(severities()):
            dies = (severity < 0.5) != (number in (2, 9))
            death = STUDIED + timedelta(300 + number)
            row = (death.isoformat(), "") if dies else ("", (STUDIED + timedelta(2500)).isoformat())
            writer.writerow([f"TEST-{number}", *row])


@pytest.fixture
def pacs(tmp_path: Path) -> StoragePeer:
    return StoragePeer("PACS", "127.0.0.1", 0, tmp_path / "pacs")


@pytest.mark.slow
def test_from_scans_to_the_bundle_that_serves(data: Path, tmp_path: Path, pacs: StoragePeer) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(ROOT / "weights" / "demo-synthetic", weights / "demo-synthetic")
    (weights / "current").symlink_to("demo-synthetic")
    (weights / "gate.toml").write_text(BAR)
    table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.start()}'
    node = Node(tmp_path / "node", table, "radiomics = false\n[registry]\nrecord = true\nvolumes = true\n")
    text = (
        node.config_path.read_text().replace(str(ROOT / "weights"), str(weights)).replace("demo-synthetic", "current")
    )
    node.config_path.write_text(text)
    node.config = config.load(node.config_path)
    # A key of the test's choice: the pseudonyms decide the folds, which are then always the same.
    node.config.registry.folder.mkdir(parents=True)
    (node.config.registry.folder / KEY_FILE).write_bytes(b"loop" * 8)
    node.start()
    try:
        worker = node.child("work").pid
        for number, severity in enumerate(severities()):
            send(node, scan(data, tmp_path / "scans", str(number), severity))
        for number in range(PATIENTS):
            assert delivered(node, str(number))["bundle"] == "demo-synthetic"
        run = train(node, tmp_path)
        promoted = training("promote", run, "--to", weights)
        assert promoted.returncode == 0, promoted.stderr
        send(node, scan(data, tmp_path / "scans", "last", 0.4))
        risk = delivered(node, "last")
        assert (risk["bundle"], risk["version"], risk["intended_use"]) == ("loop", "7", "research")
        assert node.child("work").pid == worker
        (report,) = [t for p in (tmp_path / "pacs").rglob("*.dcm") if "\nloop\n" in (t := texts(p, study_uid("last")))]
        assert risk["bundle_sha256"] in report
    finally:
        node.stop()
        pacs.stop()
    back = training("rollback", weights)
    assert back.returncode == 0, back.stderr
    assert (weights / "current").resolve().name == "demo-synthetic"


def train(node: Node, folder: Path) -> Path:
    """Export, outcomes, run and gate by their commands; the run's folder."""
    write_outcomes(folder / "outcomes.csv")
    taken = dicomnode("registry", "import-outcomes", folder / "outcomes.csv", "--config", node.config_path)
    assert f"{PATIENTS} outcomes imported, {PATIENTS} with a scan" in taken.stdout, taken.stderr
    exported = dicomnode("registry", "export", "--out", folder / "registry", "--config", node.config_path)
    assert f"{PATIENTS} scans of {PATIENTS} patients, {PATIENTS} volumes" in exported.stdout, exported.stderr
    (folder / "run.toml").write_text(SETTINGS)
    done = training("run", folder / "run.toml")
    assert done.returncode == 0, done.stderr
    refused = training("promote", folder / "run", "--to", folder / "weights")
    assert "run `training compare" in refused.stderr
    gate = training("compare", folder / "run", folder / "weights" / "current")
    assert gate.returncode == 0, gate.stdout + gate.stderr
    return folder / "run"


def send(node: Node, files: list[Path]) -> None:
    association.send(association.Peer("node", "DICOMNODE", "127.0.0.1", node.port, "SCANNER"), files)


def delivered(node: Node, name: str) -> dict[str, str]:
    """The risk in a study's findings, once its results are in the PACS."""
    uid = study_uid(name)
    assert node.ended(uid, 240) == "delivered"
    # On a busy machine a study may fall quiet while it is sent: then it has settled twice.
    generation = int(node.show(uid)["generation"])
    findings = json.loads((results_folder(node.config.storage.results, uid, generation) / "findings.json").read_text())
    return dict(findings["risk"])


def texts(path: Path, of_study: str) -> str:
    """All values of a report of this study, "" for other objects."""
    found = pydicom.dcmread(path)
    if found.StudyInstanceUID != of_study or found.Modality != "SR":
        return ""
    return "\n".join(str(element.value) for element in found.iterall() if element.VR != "SQ")
