"""What other people's programs say about our objects: dicom3tools, PixelMed, DCMTK, dcmqi, SimpleITK."""

import html
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.analysis.arrays import HuArray, Volume
from dicomnode.analysis.measures.attenuation import areas as attenuation_areas
from dicomnode.report import attenuation, codes, labelmap, rejection_note, segmentation
from dicomnode.report.page import summary, views
from dicomnode.report.pdf import document
from dicomnode.report.pdf.typesetting import pdf_bytes
from dicomnode.report.rejection_note import RejectedObject
from dicomnode.report.sr import measurements, refusal, risk
from tests.acceptance.validators import Peer, PixelMed, errors, said, without_the_known
from tests.helpers import report_cases as cases

SOURCES = ["synthetic", "tiny", "lidc"]
REPORTS = ["measurements", "risk", "refusal"]
KINDS = ["segmentation", "attenuation", *REPORTS, "summary", "pdf", "rejection"]


@dataclass(frozen=True)
class Written:
    """The objects of one source, written to files."""

    folder: Path
    labels: NDArray[np.uint8]
    source_files: tuple[Path, ...]

    def __getitem__(self, kind: str) -> Path:
        return self.folder / f"{kind}.dcm"


def load(name: str, data: Path, folder: Path) -> tuple[list[Dataset], HuArray, NDArray[np.uint8], tuple[Path, ...]]:
    if name == "synthetic":
        headers, labels = cases.synthetic(), cases.boxes()
        for header in headers:
            # A local code is not in the context group that PixelMed looks in: that has a test of its own below.
            del header.ProcedureCodeSequence
        hu = np.full(labels.shape, -800, np.int16)
        hu[:, :, ::3], hu[:, ::4] = -500, -980
        return headers, hu, labels, ()
    files = {"tiny": "chest_tiny_cip/ct-64Dicom/*", "lidc": "chest_lidc0314_every4th/*.dcm"}[name]
    images = folder / "images"
    images.mkdir()
    for path in data.glob(files):
        (images / path.name).symlink_to(path)
    headers, hu = cases.read_series(images)
    return headers, hu, cases.threshold_lungs(hu), tuple(Path(str(header.filename)) for header in headers)


@pytest.fixture(scope="module", params=SOURCES)
def written(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp(request.param)
    headers, hu, labels, files = load(request.param, data, folder)
    use = "synthetic-demo" if request.param == "tiny" else "research"
    change = cases.changed() if request.param == "tiny" else None
    trend = cases.scanned_before(3) if request.param == "tiny" else ()
    predicted = cases.risk(use)  # type: ignore[arg-type]
    findings = cases.findings_of(headers, predicted=predicted, change=change, trend=trend)
    assert findings.series is not None
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    volume = Volume(hu, findings.series.spacing_mm, (0.0, 0.0, 0.0), axes, ())
    shown = views.choose(volume, labels)
    picture, pdf = summary.picture(shown, findings), pdf_bytes(findings, cases.CONTEXT, headers[0], shown)
    seg = segmentation.encode(headers, labels, findings, cases.CONTEXT)
    areas = attenuation.encode(headers, attenuation_areas(volume, labels), findings, cases.CONTEXT)
    assert areas is not None
    objects = {
        "segmentation": seg,
        "attenuation": areas,
        "measurements": measurements.encode(headers, findings, seg, cases.CONTEXT),
        "risk": risk.encode(headers, findings, cases.CONTEXT),
        "refusal": refusal.encode(headers[0], cases.refused(), cases.CONTEXT),
        "summary": summary.encode(headers, picture, findings, cases.CONTEXT),
        "pdf": document.encode(headers[0], pdf, findings, cases.CONTEXT),
    }
    old = [
        RejectedObject(str(d.SOPClassUID), str(d.SOPInstanceUID), str(d.SeriesInstanceUID)) for d in objects.values()
    ]
    reason = codes.REJECTIONS["113037"]
    objects["rejection"] = rejection_note.encode(headers[0], old, reason, "pacs", findings, cases.CONTEXT)
    for kind, dataset in objects.items():
        (folder / f"{kind}.dcm").write_bytes(cases.to_bytes(dataset))
    return Written(folder, labels, files)


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(written: Written, kind: str, peer: Peer) -> None:
    assert errors(said([peer("dciodvfy", "dicom3tools"), written[kind]])) == []


def test_dcentvfy_finds_one_patient_and_one_study(written: Written, peer: Peer) -> None:
    files = [*(written[kind] for kind in KINDS), *written.source_files]
    assert errors(said([peer("dcentvfy", "dicom3tools"), *files])) == []


@pytest.mark.parametrize("kind", REPORTS)
def test_dsrdump_reads_the_reports(written: Written, kind: str, peer: Peer) -> None:
    text = said([peer("dsrdump", "dcmtk"), "+Pl", written[kind]])
    assert errors(text) == []
    assert "Research use only; check the images first." in text
    assert "Imaging Measurement Report" in text


@pytest.mark.parametrize(("kind", "values"), [("measurements", 17), ("risk", 9)])
def test_dsr2html_prints_every_number_with_its_name(written: Written, kind: str, values: int, peer: Peer) -> None:
    """A number in a continuous container is printed bare."""
    page = html.unescape(said([peer("dsr2html", "dcmtk"), written[kind]]))
    names = {item.ConceptNameCodeSequence[0].CodeMeaning for item in numbers(pydicom.dcmread(written[kind]))}
    assert len(names) >= values
    assert [name for name in names if f"<b>{name}:</b>" not in page] == []


def numbers(item: Dataset) -> list[Dataset]:
    """Every NUM item below an item."""
    below = [n for child in item.get("ContentSequence", ()) for n in numbers(child)]
    return [item, *below] if item.get("ValueType") == "NUM" else below


@pytest.mark.parametrize("kind", REPORTS)
def test_pixelmed_finds_no_error(written: Written, kind: str, pixelmed: PixelMed) -> None:
    assert without_the_known(pixelmed(written[kind])) == []


def test_a_local_procedure_code_is_the_only_thing_pixelmed_minds(tmp_path: Path, pixelmed: PixelMed) -> None:
    """CID 100 is extensible, and the source's own procedure code is reported as it is; PixelMed calls that an error."""
    headers = cases.synthetic()
    document = risk.encode(headers, cases.analysed(predicted=cases.risk("research")), cases.CONTEXT)
    (tmp_path / "risk.dcm").write_bytes(cases.to_bytes(document))
    (only,) = errors(pixelmed(tmp_path / "risk.dcm"))
    assert "Procedure reported" in only
    assert "not found in context group 100" in only


def test_dcmqi_reads_the_measurements(written: Written, peer: Peer, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    said([peer("tid1500reader", "dcmqi"), "--inputDICOM", written["measurements"], "--outputMetadata", out])
    groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    assert [group["Laterality"]["CodeMeaning"] for group in groups] == ["Right", "Left", "Bilateral"]
    assert [group["TrackingIdentifier"] for group in groups] == ["Right lung", "Left lung", "Lungs"]
    assert [group["ReferencedSegment"] for group in groups][:2] == [1, 2]
    for group, volume in zip(groups, ("2321", "2000", "4321"), strict=True):
        values = {i["quantity"]["CodeValue"]: i["value"] for i in group["measurementItems"]}
        assert values["118565006"] == volume
        assert (values["HAA600_250"], values["LAA950"]) == ("12.5", "3.2")


def test_the_mask_that_dcmqi_reads_is_ours_in_place(written: Written, peer: Peer, tmp_path: Path) -> None:
    """Voxel for voxel, at the patient coordinates that ITK gives each voxel of the source."""
    program = peer("segimage2itkimage", "dcmqi")
    said([program, "--inputDICOM", written["segmentation"], "--outputDirectory", tmp_path, "-t", "nrrd"])
    source = source_grid(written)
    for number in (1, 2):
        mask = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        # Both grids are the source's: dcmqi's lacks the empty slices at the ends.
        np.testing.assert_allclose(mask.GetSpacing(), source.GetSpacing(), rtol=1e-4)
        np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-6)
        on_source = sitk.Resample(mask, source, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(on_source) > 0, written.labels == number)


def test_dcmqi_reads_the_label_map(tmp_path: Path, peer: Peer) -> None:
    """dicom3tools of 2023 knows no label maps: a reader has to do."""
    headers, labels = cases.synthetic(), cases.boxes()
    made = labelmap.encode(headers, labels, cases.findings_of(headers), cases.CONTEXT)
    (tmp_path / "flat.dcm").write_bytes(cases.to_bytes(made))
    program = peer("segimage2itkimage", "dcmqi")
    said([program, "--inputDICOM", tmp_path / "flat.dcm", "--outputDirectory", tmp_path, "-t", "nrrd"])
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "1.nrrd")))
    np.testing.assert_array_equal(found, labels[1:-1])


def source_grid(written: Written) -> sitk.Image:
    """The grid of the source as ITK's own reader sees it (the synthetic source has no files: its geometry by hand)."""
    if written.source_files:
        return sitk.ReadImage([str(path) for path in written.source_files])
    image = sitk.GetImageFromArray(written.labels)
    image.SetSpacing((2.0, 2.0, 4.0))
    image.SetOrigin((-48.0, -32.0, 0.0))
    return image
