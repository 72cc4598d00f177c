"""Each rule refuses what it should, and nothing else: one change to a good series, the codes that must follow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage, generate_uid

from dicomnode.analysis.series import suitability
from dicomnode.analysis.series.headers import ImageHeader
from dicomnode.analysis.series.selection import find_files, group, read_headers, select
from dicomnode.analysis.series.selection_rules import Rules
from tests.helpers.ct_files import ct_series

Change = Callable[[list[Dataset]], object]


def codes(datasets: list[Dataset]) -> list[str]:
    [series] = group(ImageHeader(Path("in memory"), d) for d in datasets)
    return [r.code for r in suitability.reasons(suitability.facts(series))]


def put(keyword: str, value: object, which: slice = slice(None)) -> Change:
    def change(datasets: list[Dataset]) -> None:
        for d in datasets[which]:
            setattr(d, keyword, value)

    return change


def drop(keyword: str, which: slice = slice(None)) -> Change:
    def change(datasets: list[Dataset]) -> None:
        for d in datasets[which]:
            delattr(d, keyword)

    return change


def move(i: int, **by: float) -> Change:
    def change(datasets: list[Dataset]) -> None:
        x, y, z = (float(v) for v in datasets[i].ImagePositionPatient)
        datasets[i].ImagePositionPatient = [x + by.get("x", 0), y, z + by.get("z", 0)]

    return change


def tilt(degrees: float) -> Change:
    def change(datasets: list[Dataset]) -> None:
        angle = np.radians(degrees)
        for i, d in enumerate(datasets):
            d.ImageOrientationPatient = ["1", "0", "0", "0", f"{np.cos(angle):.8f}", f"{-np.sin(angle):.8f}"]
            d.ImagePositionPatient = [0, 0, i * 5]

    return change


def spread(*positions_mm: float) -> Change:
    """The slices at these positions, then on at a step of 1 mm."""

    def change(datasets: list[Dataset]) -> None:
        for i, d in enumerate(datasets):
            z = positions_mm[i] if i < len(positions_mm) else positions_mm[-1] + 1 + i - len(positions_mm)
            d.ImagePositionPatient = [0, 0, z]

    return change


def syntax(uid: str) -> Change:
    def change(datasets: list[Dataset]) -> None:
        datasets[3].file_meta.TransferSyntaxUID = uid

    return change


ONE = slice(5, 6)
SIEMENS_ORIGINAL = ["DERIVED", "PRIMARY", "AXIAL"]
REFUSED: list[tuple[Change, list[str]]] = [
    (put("Modality", "MR"), ["not-ct"]),
    (put("SOPClassUID", EnhancedCTImageStorage), ["enhanced-ct"]),
    (put("NumberOfFrames", 3), ["enhanced-ct"]),
    (put("SOPClassUID", SecondaryCaptureImageStorage), ["not-ct-image"]),
    (drop("Modality"), ["no-modality"]),
    (put("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), ["localizer"]),
    (put("ImageType", ["DERIVED", "SECONDARY", "MPR"], ONE), ["derived"]),
    (put("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "MPR"]), ["derived"]),
    (lambda d: (put("ImageType", SIEMENS_ORIGINAL)(d), put("DerivationDescription", "MPR")(d)), ["derived"]),
    (lambda d: (put("ImageType", SIEMENS_ORIGINAL)(d), put("Manufacturer", "GE")(d)), ["derived"]),
    (put("BodyPartExamined", "HEAD"), ["not-chest"]),
    (put("SeriesDescription", "ABDOMEN 1.0 Br40"), ["not-chest"]),
    (put("StudyDescription", "CT Neck"), ["not-chest"]),
    (lambda d: d.__delitem__(slice(19, None)), ["too-few-slices", "coverage"]),
    (lambda d: d.__delitem__(slice(30, None)), ["coverage"]),
    (drop("Rows", ONE), ["missing-attributes", "mixed-size"]),
    (drop("PixelRepresentation"), ["missing-attributes"]),
    (drop("PhotometricInterpretation"), ["missing-attributes"]),
    (put("PhotometricInterpretation", "MONOCHROME1"), ["not-monochrome2"]),
    (put("SamplesPerPixel", 3), ["not-monochrome2"]),
    (drop("RescaleSlope", ONE), ["no-rescale"]),
    (drop("RescaleIntercept"), ["no-rescale"]),
    (put("RescaleSlope", "0"), ["no-rescale"]),
    (put("RescaleType", "ED"), ["not-hu"]),
    (syntax("1.2.840.10008.1.2.4.103"), ["unsupported-syntax"]),
    (syntax("1.2.3.4"), ["unsupported-syntax"]),
    (drop("ImagePositionPatient", ONE), ["no-geometry"]),
    (drop("ImageOrientationPatient"), ["no-geometry"]),
    (drop("PixelSpacing", ONE), ["no-pixel-spacing"]),
    (put("PixelSpacing", ["0", "1"]), ["no-pixel-spacing"]),
    (put("PixelSpacing", ["1547185712", "540487216"]), ["no-pixel-spacing"]),  # digits that were read as UL
    (put("PixelSpacing", ["0.7", "1.5516e-19"]), ["no-pixel-spacing"]),
    (put("ImagePositionPatient", ["0", "0", "2.07e17"]), ["no-geometry"]),
    (put("PixelSpacing", ["0.8", "0.9"], ONE), ["mixed-size"]),
    (put("Columns", 7, ONE), ["mixed-size"]),
    (put("ImageOrientationPatient", ["-1", "0", "0", "0", "-1", "0"], ONE), ["mixed-orientation"]),
    (put("FrameOfReferenceUID", generate_uid(), ONE), ["mixed-frames-of-reference"]),
    (tilt(35), ["not-axial", "gantry-tilt"]),
    (tilt(24), ["not-axial"]),
    (put("ImagePositionPatient", ["-10", "-20", "-300"], slice(1, 2)), ["duplicate-positions", "missing-slices"]),
    (lambda d: d.extend(ct_phase(d)), ["duplicate-positions"]),
    (lambda d: d.pop(20), ["missing-slices"]),
    (move(9, z=1.5), ["non-uniform"]),
    (spread(0, 3.2), ["coverage", "missing-slices"]),
    (spread(0, 2.5, 5.0), ["coverage", "missing-slices"]),
    (move(9, x=4.0), ["non-uniform"]),
    (lambda d: d.append(d[0]), ["duplicate-instances", "duplicate-positions"]),
]

ACCEPTED: list[Change] = [
    put("ImageType", SIEMENS_ORIGINAL),
    put("ImageType", [*SIEMENS_ORIGINAL, "CT_SOM5 SPI"]),
    lambda d: None,
    lambda d: d.reverse(),
    drop("FrameOfReferenceUID"),
    drop("ConvolutionKernel"),
    drop("SliceThickness"),
    put("BodyPartExamined", "CHEST"),
    put("BodyPartExamined", "CHESTABDPELVIS"),
    put("SeriesDescription", "Thorax/Abdomen 1.0"),
    put("StudyDescription", "CT CHEST ABDOMEN"),
    put("RescaleType", "HU"),
    put("RescaleType", "US"),
    put("RescaleType", "hu"),
    put("NumberOfFrames", 1),
    move(9, z=0.1),
    move(9, z=1.0),
    tilt(14),
    lambda d: (put("BodyPartExamined", "HEAD")(d), put("SeriesDescription", "Lung 1.0 B60")(d)),
]


def ct_phase(datasets: list[Dataset]) -> list[Dataset]:
    """A second phase of the same slices within the same series."""
    first = datasets[0]
    uids = {k: first[k].value for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    return ct_series(**uids)


@pytest.mark.parametrize(("change", "expected"), REFUSED)
def test_refused(change: Change, expected: list[str]) -> None:
    datasets = ct_series()
    change(datasets)
    assert codes(datasets) == expected


@pytest.mark.parametrize("change", ACCEPTED)
def test_accepted(change: Change) -> None:
    datasets = ct_series()
    change(datasets)
    assert codes(datasets) == []


BY_RULES: list[tuple[Rules, dict[str, object], list[str]]] = [
    (Rules(modalities=("CT", "PT")), {"Modality": "PT"}, []),
    (Rules(body_part_may_be_missing=False), {}, ["not-chest"]),
    (Rules(body_part_may_be_missing=False), {"BodyPartExamined": "CHEST"}, []),
    (Rules(other_body_parts=()), {"BodyPartExamined": "HEAD"}, []),
    (Rules(body_parts=(r"\bcardiac",)), {"BodyPartExamined": "HEAD", "SeriesDescription": "Cardiac 0.6"}, []),
    (Rules(min_slices=41), {}, ["too-few-slices"]),
    (Rules(min_coverage_mm=196), {}, ["coverage"]),
    (Rules(max_step_mm=5), {}, []),
    (Rules(max_step_mm=4), {}, ["too-thick"]),
    (Rules(max_thickness_mm=4), {}, ["too-thick"]),
    (Rules(max_thickness_mm=4), {"SliceThickness": ""}, []),
    (Rules(kernels=("medium",)), {}, ["kernel-refused"]),
    (Rules(contrast="refused"), {}, []),
    (Rules(contrast="refused"), {"ContrastBolusAgent": "IOMERON"}, ["contrast-refused"]),
    (Rules(contrast="refused"), {"ContrastBolusAgent": "No contrast"}, []),
    (Rules(contrast="refused"), {"ContrastBolusAgent": "ohne KM"}, []),
    (Rules(image_type_refused=("MIP",)), {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, ["image-type"]),
    (Rules(image_type_refused=()), {"ImageType": ["DERIVED", "SECONDARY"]}, []),
    (Rules(image_type_required=("PRIMARY",)), {"ImageType": ["ORIGINAL", "SECONDARY"]}, ["image-type"]),
    (Rules(description_exclude=("mip",)), {"SeriesDescription": "Lung MIP"}, ["description-excluded"]),
    (Rules(description_include=("lung", "thin")), {"SeriesDescription": "Lung 1.0"}, []),
    (Rules(description_include=("lung", "thin")), {"SeriesDescription": "Thorax"}, ["description-not-included"]),
    (Rules(max_degrees_from_axial=1), {"ImageOrientationPatient": [1, 0, 0, 0, 0.9994, 0.0349]}, ["not-axial"]),
]


@pytest.mark.parametrize(("limits", "attributes", "expected"), BY_RULES)
def test_rules_of_the_site(limits: Rules, attributes: dict[str, object], expected: list[str]) -> None:
    [series] = group(ImageHeader(Path("in memory"), d) for d in ct_series(**attributes))
    assert [r.code for r in suitability.reasons(suitability.facts(series, limits))][: len(expected) or None] == expected


CHEST_IN_MANY_LANGUAGES = [
    "Thorax",
    "TÓRAX",
    "torace",
    "Brustkorb",
    "Poumons",
    "płuca",
    "klatka_piersiowa",
    "Lungor",
    "keuhkot",
    "tüdő",
    "akciğer",
    "лёгкие",
    "органы_грудной_клетки",
    "θώρακας",
    "胸部",
    "肺部薄层",
    "흉부",
    "HRCT_ILD",
]


@pytest.mark.parametrize("words", CHEST_IN_MANY_LANGUAGES)
def test_the_chest_in_many_languages(words: str) -> None:
    named = {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": words, "BodyPartExamined": "HEAD"}
    assert codes(ct_series(**named)) == []


CHEST_IN_SHORT = [
    "CT CH/ABD/PEL",
    "THX/ABD",
    "CHST ABD PELV",
    "TAP",
    "CT TAP c+",
    "CAP",
    "CTCAP",
    "C/A/P W CONTRAST",
    "ThAbdBe",
    "Thorax-Abdomen",
    "CH_AB_PEL",
    "Whole Body PET-CT",
    "Polytrauma Abdomen",
]


@pytest.mark.parametrize("words", CHEST_IN_SHORT)
@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName", "StudyDescription"])
def test_a_chest_with_abdomen_in_short(keyword: str, words: str) -> None:
    assert codes(ct_series(**{keyword: words})) == []


@pytest.mark.parametrize("words", ["ABD/PEL", "CT ABD PELV", "Captured head", "Tapestry abdomen", "Neck chin"])
def test_words_that_only_look_like_a_chest(words: str) -> None:
    assert codes(ct_series(SeriesDescription=words)) == ["not-chest"]


def test_an_original_that_calls_itself_derived_is_flagged() -> None:
    frames = ct_series(ImageType=SIEMENS_ORIGINAL)
    chosen = select(group(ImageHeader(Path("in memory"), d) for d in frames))
    assert chosen.chosen is not None
    assert "derived-original" in {flag.code for flag in chosen.flags}


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ((1, 0, 0, 0, 0, -1), ["not-axial"]),
        ((0, 1, 0, 0, 0, -1), ["not-axial"]),
        ((0, 1, 0, -1, 0, 0), []),
        ((-1, 0, 0, 0, 1, 0), []),
    ],
)
def test_reformats_are_refused_and_quarter_turns_are_not(orientation: tuple[int, ...], expected: list[str]) -> None:
    assert codes(ct_series(orientation=orientation)) == expected


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_uniform() -> None:
    datasets = ct_series(np.zeros((300, 2, 2), np.int16), step_mm=0.625)
    for d in datasets:
        d.ImagePositionPatient = [f"{float(v):.1f}" for v in d.ImagePositionPatient]
    assert codes(datasets) == []


def test_truncated_files_name_the_first_image_and_no_patient() -> None:
    datasets = ct_series()
    headers = [ImageHeader(Path("x"), d, missing_bytes=10 * (i == 4)) for i, d in enumerate(datasets)]
    [reason] = suitability.reasons(suitability.facts(group(headers)[0]))
    assert reason.code == "truncated"
    assert datasets[4].SOPInstanceUID in reason.text


def test_no_reason_names_the_patient() -> None:
    for change, _ in REFUSED:
        datasets = ct_series(StudyDescription="Head SECRET", PatientName="SECRET", PatientID="SECRET")
        change(datasets)
        [series] = group(ImageHeader(Path("SECRET"), d) for d in datasets)
        for reason in suitability.reasons(suitability.facts(series)):
            assert "SECRET" not in reason.text


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("lungmask_2slices", {"no-modality", "too-few-slices", "coverage"}),
        ("nonstandard_ct_dicom2nifti/001", {"missing-slices", "too-few-slices", "coverage"}),
        ("nonstandard_ct_dicom2nifti/gantrytilting", {"too-few-slices", "coverage", "gantry-tilt"}),
        ("chest_tiny_cip/ct-64Dicom", set()),
        ("chest_lidc0314_every4th", set()),
    ],
)
def test_real_series(data: Path, folder: str, expected: set[str]) -> None:
    headers, _ = read_headers(find_files(data / folder))
    [series] = group(headers)
    assert {r.code for r in suitability.reasons(suitability.facts(series))} == expected
