"""Results as files: whole or not at all, and the same bytes for the same input."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Analysis, Method, analyse
from dicomnode.report.wording import is_administrative
from dicomnode.results import encode, reader_flags
from tests.helpers import report_cases as cases
from tests.helpers.ct_files import ct_series, write


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    images = ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"], lowest_mm=scan.origin_mm)
    files = write(images, tmp_path_factory.mktemp("scan"))
    found = analyse(files, Method(ClassicalSegmenter(), None, None))
    assert found.findings.status == "analysed", found.findings.rejected
    return found


def test_a_checkpoint_is_restored_as_it_was_saved(analysis: Analysis, tmp_path: Path) -> None:
    saved = encode.AnalysisCheckpoint.of(analysis)
    saved.save(tmp_path)
    restored = encode.AnalysisCheckpoint.restore(tmp_path)
    assert restored.findings == saved.findings
    assert restored.sources == saved.sources
    np.testing.assert_array_equal(restored.labels_in_source, saved.labels_in_source)
    np.testing.assert_array_equal(restored.views.coronal.hu, saved.views.coronal.hu)


def test_encoding_a_restored_checkpoint_gives_the_same_bytes(analysis: Analysis, tmp_path: Path) -> None:
    context = encode.context(1_780_000_000.0, "NODE")
    checkpoint = encode.AnalysisCheckpoint.of(analysis)
    first = encode.encode(checkpoint, context, tmp_path / "a")
    checkpoint.save(tmp_path / "c")
    second = encode.encode(encode.AnalysisCheckpoint.restore(tmp_path / "c"), context, tmp_path / "b")
    assert [o.name for o in first] == ["seg", "measurements", "summary", "pdf"]
    for a, b in zip(first, second, strict=True):
        assert a.sop_instance_uid == b.sop_instance_uid
        assert a.path.read_bytes() == b.path.read_bytes()


def test_the_areas_by_attenuation_are_an_object_where_they_are_wanted(analysis: Analysis, tmp_path: Path) -> None:
    context = encode.context(1_780_000_000.0, "NODE")
    encode.AnalysisCheckpoint.of(analysis, attenuation_maps=True).save(tmp_path / "c")
    restored = encode.AnalysisCheckpoint.restore(tmp_path / "c")
    made = encode.encode(restored, context, tmp_path / "a")
    assert [o.name for o in made] == ["seg", "measurements", "attenuation", "summary", "pdf"]
    assert len({o.sop_instance_uid for o in made}) == 5


def test_label_maps_and_the_report_that_refers_to_them(analysis: Analysis, tmp_path: Path) -> None:
    context = encode.context(1_780_000_000.0, "NODE")
    checkpoint = encode.AnalysisCheckpoint.of(analysis)
    made = encode.encode(checkpoint, context, tmp_path / "a", labelmaps=True)
    flat = {o.name: pydicom.dcmread(o.path) for o in made if o.is_labelmap}
    usual = {o.name: pydicom.dcmread(o.path) for o in made if not o.is_labelmap}
    assert set(flat) == {"seg", "measurements"}
    assert flat["seg"].SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert flat["seg"].file_meta.TransferSyntaxUID == RLELossless
    labels = np.zeros_like(checkpoint.labels_in_source)
    places = {
        str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): k for k, p in enumerate(checkpoint.sources)
    }
    for frame, groups in zip(flat["seg"].pixel_array, flat["seg"].PerFrameFunctionalGroupsSequence, strict=True):
        labels[places[groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]] = frame
    np.testing.assert_array_equal(labels, checkpoint.labels_in_source)
    seg, other = flat["seg"], usual["seg"]
    told = {name: str(one["measurements"]) for name, one in (("flat", flat), ("usual", usual))}
    for uid in (seg.SOPInstanceUID, seg.SeriesInstanceUID):
        assert uid in told["flat"] and uid not in told["usual"]
    for uid in (other.SOPInstanceUID, other.SeriesInstanceUID):
        assert uid not in told["flat"] and uid in told["usual"]
    uids = {str(one.SOPInstanceUID) for one in (*flat.values(), *usual.values())}
    assert len(uids) == 6
    again = encode.encode(checkpoint, context, tmp_path / "b", labelmaps=True)
    assert [o.path.read_bytes() for o in again] == [o.path.read_bytes() for o in made]


def test_a_refused_study_has_nothing_to_encode() -> None:
    with pytest.raises(ValueError, match="nothing to encode"):
        encode.AnalysisCheckpoint.of(analyse([], Method(ClassicalSegmenter(), None, None)))


def test_a_refusal_is_a_page_and_a_pdf_where_a_destination_takes_them(tmp_path: Path) -> None:
    source = tmp_path / "image.dcm"
    source.write_bytes(cases.to_bytes(cases.synthetic(1)[0]))
    context = encode.context(1_780_000_000.0, "NODE")
    wanted = ("seg", "summary", "pdf")
    made = encode.encode_refusal(cases.refused(), source, context, tmp_path, wanted)
    assert [o.name for o in made] == ["refusal", "refusal-summary", "refusal-pdf"]
    assert [encode.is_for(o.name, ("pdf",)) for o in made] == [True, False, True]
    assert [o.name for o in encode.encode_refusal(cases.refused(), source, context, tmp_path)] == ["refusal"]


def test_every_flag_about_order_and_priors_is_administrative() -> None:
    clinical = {code for code, flag in reader_flags.FLAGS.items() if not is_administrative(flag)}
    assert clinical == {"object-without-patient-id"}, "whose image it is, is a doubt about what was measured"
