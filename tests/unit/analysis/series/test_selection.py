"""Grouping, choosing among suitable series, flags, and the input digest."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage, generate_uid

from dicomnode.analysis.findings import Reason
from dicomnode.analysis.series.selection import (
    ImageHeader,
    Selection,
    Unreadable,
    find_files,
    group,
    input_digest,
    read_headers,
    select,
    studies,
)
from dicomnode.analysis.series.selection_rules import Rules
from tests.helpers.ct_files import ct_series, write

STUDY = generate_uid()


def frames(slices: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    return np.zeros((slices, 2, 2), np.int16)


def series(slices: int = 60, step_mm: float = 5.0, **attributes: object) -> list[Dataset]:
    return ct_series(frames(slices), step_mm=step_mm, **{"StudyInstanceUID": STUDY, **attributes})


def headers(*of: list[Dataset]) -> list[ImageHeader]:
    return [ImageHeader(Path("in memory"), d) for datasets in of for d in datasets]


def choose(*of: list[Dataset]) -> Selection:
    return select(group(headers(*of)))


PREFERRED: dict[str, tuple[list[Dataset], list[Dataset]]] = {
    "thin over thick": (series(200, 1.0), series(40, 5.0)),
    "thin and soft over thick and sharp": (series(200, 1.0, ConvolutionKernel="B31f"), series(40, 5.0)),
    "lung over soft kernel": (series(ConvolutionKernel="B60f"), series(ConvolutionKernel="B31f")),
    "medium over soft kernel": (series(ConvolutionKernel="B45f"), series(ConvolutionKernel="B31f")),
    "known over unknown kernel": (series(ConvolutionKernel="B45f"), series(ConvolutionKernel="own")),
    "1.0 mm and lung over 0.7 mm and soft": (series(300, 1.0), series(430, 0.7, ConvolutionKernel="B31f")),
    "covers more": (series(70), series(40)),
    "primary over secondary": (series(), series(ImageType=["ORIGINAL", "SECONDARY", "AXIAL"])),
    "supine over prone": (series(), series(PatientPosition="HFP")),
    "inspiration over expiration": (series(60, 5.0), series(300, 1.0, SeriesDescription="Lung EXP 1.0")),
    "prone over expiration": (series(PatientPosition="HFP"), series(SeriesDescription="Thorax Exspiration")),
    "conventional over monoenergetic": (
        series(SeriesDescription="Thorax conventional"),
        series(300, 1.0, ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "MONOENERGETIC"]),
    ),
    "prone over a spectral map": (series(PatientPosition="HFP"), series(SeriesDescription="MonoE 40keV[HU]")),
    "supine in words over prone in words": (
        series(SeriesDescription="HRCT SUPINE"),
        series(300, 1.0, SeriesDescription="HRCT PRONE"),
    ),
    "ungated over gated": (series(), series(300, 1.0, SeriesDescription="Thorax EKG")),
    "diagnostic over attenuation correction": (series(60, 5.0), series(300, 1.0, SeriesDescription="CTAC")),
    "lossless over lossy": (
        series(),
        series(LossyImageCompression="01", ImageType=["DERIVED", "PRIMARY", "AXIAL"]),
    ),
    "thinner where all else is the same": (series(300, 1.0), series(240, 1.25)),
}


@pytest.mark.parametrize(("better", "worse"), PREFERRED.values(), ids=PREFERRED.keys())
def test_preferred(better: list[Dataset], worse: list[Dataset]) -> None:
    for order in ((better, worse), (worse, better)):
        selection = choose(*order)
        assert selection.chosen is not None
        assert selection.chosen.series_uid == better[0].SeriesInstanceUID
        [rejected] = selection.rejected
        assert rejected.series_uid == worse[0].SeriesInstanceUID
        assert [r.code for r in rejected.reasons] == ["another-series-preferred"]
        assert selection.why_chosen.endswith("preferred to 1 other suitable series")


@pytest.mark.parametrize(
    ("limits", "better", "worse"),
    [
        (Rules(contrast="preferred"), {"ContrastBolusAgent": "IOMERON"}, {}),
        (Rules(kernels=("medium", "lung")), {"ConvolutionKernel": "B45f"}, {}),
    ],
)
def test_the_site_ranks(limits: Rules, better: dict[str, str], worse: dict[str, str]) -> None:
    of = series(**better), series(**worse)  # type: ignore[arg-type]
    selection = select(group(headers(*of)), limits=limits)
    assert selection.chosen is not None
    assert selection.chosen.series_uid == of[0][0].SeriesInstanceUID
    assert [r.series_uid for r in selection.rejected] == [of[1][0].SeriesInstanceUID]


def test_why_chosen_is_one_plain_sentence() -> None:
    assert choose(series(321, 1.0)).why_chosen == (
        "1.0 mm slice spacing, kernel B60f (lung), 320 mm coverage; the only suitable series"
    )


def test_the_rejected_carry_their_reasons_and_numbers() -> None:
    scout = series(2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    report = series(1, Modality="SR")
    selection = choose(scout, series(), report)
    assert selection.chosen is not None
    assert [(r.modality, r.slices, {x.code for x in r.reasons}) for r in selection.rejected] == [
        ("CT", 2, {"localizer", "too-few-slices", "coverage"}),
        ("SR", 1, {"not-ct"}),
    ]


def test_nothing_suitable_says_why() -> None:
    selection = choose(series(1, Modality="MR"), series(60, ImageType=["DERIVED", "SECONDARY"]))
    assert selection.chosen is None
    assert selection.why_chosen == "No series is suitable (derived, not-ct)."
    assert len(selection.rejected) == 2


def test_nothing_readable() -> None:
    unreadable = [Unreadable(Path("Secret^Name.dcm"), Reason("truncated", "The file is cut short."))]
    selection = select([], unreadable)
    assert selection.chosen is None
    assert selection.rejected == ()
    assert [(f.code, f.severity) for f in selection.flags] == [("unreadable-files", "warning")]
    assert "Secret" not in selection.flags[0].text


def test_a_truncated_file_spoils_its_series_and_not_the_study() -> None:
    damaged = [ImageHeader(h.path, h.dataset, missing_bytes=4) for h in headers(series())]
    selection = select(group(damaged + headers(series(ConvolutionKernel="B31f"))))
    assert selection.chosen is not None
    assert selection.chosen.headers[0].dataset.ConvolutionKernel == "B31f"
    assert [r.code for r in selection.rejected[0].reasons] == ["truncated"]


@pytest.mark.parametrize(
    ("attributes", "other"),
    [
        ({"PatientID": "SECRET-2"}, {}),
        ({"IssuerOfPatientID": "SECRET A"}, {"IssuerOfPatientID": "SECRET B"}),
    ],
)
def test_a_study_of_two_patients_is_held(attributes: dict[str, str], other: dict[str, str]) -> None:
    selection = choose(series(**attributes), series(**other))
    assert selection.chosen is None
    assert [[r.code for r in s.reasons] for s in selection.rejected] == [["two-patients"]] * 2
    assert "SECRET" not in repr(selection)


def test_an_issuer_that_only_some_objects_name_makes_no_second_patient() -> None:
    assert choose(series(IssuerOfPatientID="HOSPITAL"), series(1, Modality="SR")).chosen is not None


def test_an_object_without_a_patient_id_makes_no_second_patient_and_is_told_of() -> None:
    selection = choose(
        series(PatientID="A", IssuerOfPatientID="X"), series(1, Modality="SR", PatientID="", IssuerOfPatientID="Y")
    )
    assert selection.chosen is not None
    assert "object-without-patient-id" in [f.code for f in selection.flags]
    none_has_one = choose(series(PatientID=""), series(1, Modality="SR", PatientID=""))
    assert none_has_one.chosen is not None
    assert "object-without-patient-id" not in [f.code for f in none_has_one.flags]


def test_a_rejection_note_names_the_former_patient_and_makes_no_second_one() -> None:
    note = series(1, Modality="KO", PatientID="FORMER", SOPClassUID=KeyObjectSelectionDocumentStorage)
    assert choose(series(PatientID="RIGHT"), note).chosen is not None


def test_several_studies_are_told_apart_and_not_taken_together() -> None:
    first, second = series(), series(StudyInstanceUID=generate_uid())
    found = studies(group(headers(first, second)))
    assert {uid: len(of) for uid, of in found.items()} == {STUDY: 1, second[0].StudyInstanceUID: 1}
    with pytest.raises(ValueError, match="2 studies"):
        choose(first, second)


def test_group_takes_any_order_of_files() -> None:
    first, second = series(3), series(4, Modality="SR")
    mixed = [first[0], second[0], second[1], first[1], second[2], first[2], second[3]]
    assert [(s.modality, len(s.headers)) for s in group(headers(mixed))] == [("CT", 3), ("SR", 4)]


FLAGS: list[tuple[dict[str, object], dict[str, str]]] = [
    ({}, {}),
    ({"step_mm": 2.0, "slices": 100}, {}),
    ({"step_mm": 5.0}, {"thick-slices": "warning"}),
    ({"ContrastBolusAgent": "IOMERON"}, {"contrast": "info"}),
    ({"ContrastBolusAgent": ""}, {}),
    ({"ConvolutionKernel": "B31f"}, {"soft-kernel": "info"}),
    ({"ConvolutionKernel": ""}, {"kernel-unknown": "info"}),
    ({"SliceThickness": "0.5"}, {"slice-thickness-differs": "info"}),
    ({"SliceThickness": "6"}, {"slice-thickness-differs": "info"}),
    ({"SliceThickness": ""}, {}),
    ({"FrameOfReferenceUID": ""}, {"no-frame-of-reference": "warning"}),
    ({"LossyImageCompression": "01"}, {"lossy": "warning"}),
    ({"LossyImageCompression": "00"}, {}),
    ({"PatientPosition": "FFP"}, {"prone": "info"}),
    ({"SeriesDescription": "Thorax EXP"}, {"expiration": "warning"}),
    ({"SeriesDescription": "Thorax INSP/EXP"}, {}),
    ({"ContrastBolusAgent": "none"}, {}),
]


@pytest.mark.parametrize(("attributes", "expected"), FLAGS)
def test_flags(attributes: dict[str, object], expected: dict[str, str]) -> None:
    selection = choose(series(**{"slices": 100, "step_mm": 2.0, **attributes}))  # type: ignore[arg-type]
    assert {f.code: f.severity for f in selection.flags} == expected


@pytest.mark.parametrize(("kernel", "words"), [("", "The kernel is not given"), ("ZZ9", "Kernel «ZZ9» is not known")])
def test_a_kernel_that_is_not_known_is_named_and_one_that_lacks_is_not(kernel: str, words: str) -> None:
    (flag,) = choose(series(ConvolutionKernel=kernel, slices=100, step_mm=2.0)).flags
    assert flag.text.startswith(words)


def rewrite(change: Callable[[Dataset], object], paths: list[Path], folder: Path) -> str:
    folder.mkdir()
    for path in paths:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
    found, _ = read_headers(find_files(folder))
    return input_digest(group(found)[0])


def test_digest_leaves_out_who_wrote_the_file_and_the_order(tmp_path: Path) -> None:
    paths = write(series(20), tmp_path / "first")
    expected = input_digest(group(read_headers(paths)[0])[0])
    assert len(expected) == 64
    assert input_digest(group(read_headers(reversed(paths))[0])[0]) == expected

    def by_another(dataset: Dataset) -> None:
        dataset.file_meta.ImplementationVersionName = "ANOTHER"
        dataset.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
        dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
        dataset.file_meta.PrivateInformation = b"\x01\x02" * 50

    assert rewrite(by_another, paths, tmp_path / "second") == expected


@pytest.mark.parametrize("keyword", ["PixelData", "AccessionNumber", "SOPInstanceUID"])
def test_digest_changes_with_any_byte_of_the_data_set(tmp_path: Path, keyword: str) -> None:
    paths = write(series(20), tmp_path / "first")
    values = {"PixelData": b"\x01" * 8, "AccessionNumber": "7", "SOPInstanceUID": "1.2.3"}

    def change(dataset: Dataset) -> None:
        if dataset.InstanceNumber == 1:
            setattr(dataset, keyword, values[keyword])

    assert rewrite(lambda d: None, paths, tmp_path / "same") == input_digest(group(read_headers(paths)[0])[0])
    assert rewrite(change, paths, tmp_path / "other") != input_digest(group(read_headers(paths)[0])[0])


def test_real_chest_is_chosen(data: Path) -> None:
    found, unreadable = read_headers(find_files(data / "chest_lidc0314_every4th"))
    selection = select(group(found), unreadable)
    assert selection.chosen is not None
    assert selection.why_chosen == "4.0 mm slice spacing, kernel D (lung), 272 mm coverage; the only suitable series"
    flags = {f.code: f.severity for f in selection.flags}
    assert flags == {"unreadable-files": "info", "thick-slices": "warning", "slice-thickness-differs": "info"}


def test_choosing_needs_neither_torch_nor_simpleitk() -> None:
    script = "import sys, dicomnode.analysis.series.selection; print({'torch', 'SimpleITK'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"SeriesDescription": "MonoE 40keV[HU]"}, "spectral"),
        ({"SeriesDescription": "Bauchlage", "PatientPosition": "HFS"}, "posture-contradicts"),
        ({"SeriesDescription": "left decubitus"}, "decubitus"),
        ({"SeriesDescription": "CTAC"}, "attenuation-correction"),
        ({"LossyImageCompression": "01", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "lossy"),
    ],
)
def test_where_there_is_no_other_it_is_taken_with_a_flag(attributes: dict[str, object], code: str) -> None:
    selection = choose(series(**attributes))  # type: ignore[arg-type]
    assert selection.chosen is not None
    assert code in {flag.code for flag in selection.flags}


@pytest.mark.parametrize(
    ("limits", "attributes", "code", "key"),
    [
        (
            Rules(),
            {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "LossyImageCompression": "01"},
            "derived",
            "image_type_refused",
        ),
        (Rules(lossy="refused"), {"LossyImageCompression": "01"}, "lossy-refused", "[analysis.selection] lossy"),
        (Rules(), {"SeriesDescription": "Iodine no Water[mg/ml]"}, "spectral-map", "not Hounsfield units"),
    ],
)
def test_a_reason_names_the_key_that_decides(limits: Rules, attributes: dict[str, object], code: str, key: str) -> None:
    selection = select(group(headers(*[series(**attributes)])), limits=limits)  # type: ignore[arg-type]
    assert selection.chosen is None
    assert {r.code: r.text for r in selection.rejected[0].reasons}[code].find(key) >= 0


def test_the_digest_of_the_rules_is_that_of_before_where_nothing_new_is_set() -> None:
    assert not {"lossy", "invalid_identity"} & set(Rules().stated)
    assert Rules(lossy="refused").stated["lossy"] == "refused"


def test_odd_values_are_named_and_the_series_is_taken(tmp_path: Path) -> None:
    paths = write(series(SliceThickness="9.98"), tmp_path)
    for path in paths:
        content = path.read_bytes()
        assert content.count(b"9.98") == 1
        path.write_bytes(content.replace(b"9.98", b"9,98"))
    selection = select(group(read_headers(paths)[0]))
    assert selection.chosen is not None
    assert {f.code: f.text for f in selection.flags}["values-repaired"].count("SliceThickness (") == 1


def test_a_patient_id_that_no_report_can_state_refuses_the_series_unless_configured(tmp_path: Path) -> None:
    paths = write(series(), tmp_path)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"SECRET-ID ", b"SECRET\\IDS"))
    found = group(read_headers(paths)[0])
    (reason,) = [r for rejected in select(found).rejected for r in rejected.reasons]
    assert (reason.code, "invalid_identity" in reason.text) == ("identity-invalid", True)
    taken = select(found, limits=Rules(invalid_identity="verbatim"))
    assert taken.chosen is not None
    assert {f.code: f.text for f in taken.flags}["identity-verbatim"].endswith("as they came: PatientID.")
    assert "values-unusable" not in {f.code for f in taken.flags}
