"""The registry's three writers: who is a patient, what is kept of an image, and that two of them write the same."""

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicomnode.analysis.pipeline import Analysis, analyse
from dicomnode.registry.export import export
from dicomnode.registry.key import KEY_FILE
from dicomnode.registry_format.rows import SCAN_COLUMNS
from dicomnode.registry_format.volumes import OUTSIDE_HU, read_volume
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers import serial_scans
from tests.helpers.registry_node import Node
from training.data import cohort, follow_up, from_dicom, registry_folder
from training.synthetic.registry import Request
from training.synthetic.registry import make_registry as make_synthetic

#: By study, whose image it is: one Patient ID, two issuers and none.
ISSUERS = {"one": "HOSPITAL-A", "two": "HOSPITAL-B", "three": ""}
WRITERS = ("node", "training", "synthetic")


@dataclass(frozen=True)
class Written:
    """A registry by each writer; node and clinic have the same images and the same key."""

    folders: dict[str, Path]
    analyses: dict[str, Analysis]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("writers")
    rows = ["patient,issuer,death_date,last_contact_date,transplant_date"]
    for number, (name, issuer) in enumerate(ISSUERS.items()):
        stated = {"PatientID": "12345", "IssuerOfPatientID": issuer}
        serial_scans.scan(folder / "dicom" / name, name, 0.2 + 0.2 * number, f"201{5 + number}0310", **stated)
        rows.append(f"12345,{issuer},20{20 + number}-01-01,,")
    (folder / "clinic.csv").write_text("\n".join(rows) + "\n")
    analyses: dict[str, Analysis] = {}

    def remembered(*arguments: object) -> Analysis:
        found = analyse(*arguments)  # type: ignore[arg-type]
        assert found.findings.series is not None
        analyses[found.findings.series.study_uid] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_dicom, "analyse", remembered)
        patch.setattr(from_dicom, "DEFAULT_SETTINGS", None)  # radiomics take seconds a scan
        from_dicom.make_registry(folder / "dicom", folder / "training", folder / "clinic.csv", None, lambda *_: None)
    _by_node(folder, analyses)
    make_synthetic(folder / "synthetic", Request(2, 5), workers=1)
    return Written({name: folder / name for name in WRITERS}, analyses)


def _by_node(folder: Path, analyses: dict[str, Analysis]) -> None:
    """The same studies through a node's registry, and its export."""
    state = folder / "state"
    (state / "registry").mkdir(parents=True)
    (state / "registry" / KEY_FILE).write_bytes((folder / "training.key").read_bytes())
    catalog = Catalog.open(f"sqlite:///{state}/catalog.sqlite")
    try:
        node = Node(state, catalog)
        for uid, analysis in analyses.items():
            header = analysis.headers[0]
            node.study(uid, header.PatientID.encode(), (header.get("IssuerOfPatientID") or "").encode())
            assert node.keep(analysis)
        export(catalog, folder / "node")
    finally:
        catalog.close()


def scans(folder: Path) -> list[dict[str, str]]:
    with (folder / "scans.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("writer", ["node", "training"])
def test_one_patient_id_of_two_issuers_is_two_patients(written: Written, writer: str) -> None:
    """And a third without an issuer."""
    found = scans(written.folders[writer])
    assert len(found) == 3
    assert len({row["patient"] for row in found}) == 3


def test_no_change_is_measured_between_two_patients(written: Written) -> None:
    folder = written.folders["training"]
    frame = cohort.build(registry_folder.read(folder), follow_up.read_outcomes(folder / "outcomes.csv")).frame
    assert len(frame) == 3
    assert frame["prior_scan"].to_list() == [""] * 3


def test_drawn_patients_are_told_apart(written: Written) -> None:
    found = scans(written.folders["synthetic"])
    assert len({row["patient"] for row in found}) == 2


@pytest.mark.parametrize("writer", WRITERS)
def test_no_voxel_outside_the_lungs_is_kept(written: Written, writer: str) -> None:
    folder = written.folders[writer]
    files = {str(p.relative_to(folder)) for p in folder.rglob("*.npz")}
    assert files == {row["volume"] for row in scans(folder)}
    for name in files:
        volume, labels = read_volume(folder / name)
        assert (volume.hu[labels == 0] == OUTSIDE_HU).all()
        for axis in range(3):
            ends = (labels.take(end, axis) for end in (0, -1))
            assert all(end.any() for end in ends), "the box is no larger than the lungs"


def test_the_clinics_registry_is_what_a_node_would_export(written: Written) -> None:
    node, clinic = written.folders["node"], written.folders["training"]
    assert scans(node) == scans(clinic)
    pd.testing.assert_frame_equal(
        pd.read_parquet(node / "features.parquet"), pd.read_parquet(clinic / "features.parquet")
    )
    for row in scans(node):
        kept, same = (np.load(folder / row["volume"]) for folder in (node, clinic))
        assert set(kept) == set(same)
        for array in kept:
            np.testing.assert_array_equal(kept[array], same[array])


def test_what_is_stored_was_measured_on_the_whole_image(written: Written) -> None:
    """On the box alone, rim and core would have other borders, and texture another edge."""
    table = pd.read_parquet(written.folders["training"] / "features.parquet").set_index("scan")
    assert len(written.analyses) == len(table) == 3
    means = {a.findings.quantities["rim"].mean_hu for a in written.analyses.values()}
    assert set(table["quantities.rim.mean_hu"]) == means
    assert all(
        a.volume is not None and a.volume.hu.shape == serial_scans.COARSE.shape for a in written.analyses.values()
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_every_registry_has_one_form(written: Written, writer: str) -> None:
    folder = written.folders[writer]
    about = tomllib.loads((folder / "registry.toml").read_text())
    kinds = {key: type(value) for key, value in about.items() if key not in ("request", "radiomics_spacing_mm")}
    assert kinds == {
        "format": int,
        "made_by": str,
        "created": str,
        "software_version": str,
        "algorithm_digest": list,
        "notes": str,
    }
    assert (about["format"], about["made_by"]) == (2, writer)
    assert tuple(scans(folder)[0]) == SCAN_COLUMNS
    read = registry_folder.read(folder)
    assert read.lungs_alone
    assert read.features.notna().all(axis=None)
