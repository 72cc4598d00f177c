"""Which tasks of a worklist are ours, and what the messages to its server hold."""

from io import BytesIO

import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode

from dicomnode.network import mpps, ups
from dicomnode.network.ups import Reference, Task

OURS = ("110001", "DCM", "Image Processing")


def answer(
    code: tuple[str, str] = ("110001", "DCM"),
    inputs: tuple[str, ...] = ("1.2.3",),
    study: str = "",
    label: str = "lungs",
    state: str = "SCHEDULED",
    step_uid: str = "1.9",
) -> Dataset:
    made, workitem = Dataset(), Dataset()
    workitem.CodeValue, workitem.CodingSchemeDesignator = code
    made.ScheduledWorkitemCodeSequence = [workitem]
    made.InputInformationSequence = []
    for uid in inputs:
        item = Dataset()
        with disable_value_validation():
            item.StudyInstanceUID = uid
        made.InputInformationSequence.append(item)
    made.StudyInstanceUID, made.ProcedureStepLabel = study, label
    with disable_value_validation():
        made.ProcedureStepState, made.SOPInstanceUID = state, step_uid
    return made


TASK = Task("1.9", "1.2.3")
CASES = [
    ("ours", answer(), OURS, "", TASK),
    ("two series of one study", answer(inputs=("1.2.3", "1.2.3")), OURS, "", TASK),
    ("the study itself", answer(inputs=(), study="1.2.3"), OURS, "", TASK),
    ("input before study", answer(study="1.2.4"), OURS, "", TASK),
    ("of two studies", answer(inputs=("1.2.3", "1.2.4")), OURS, "", None),
    ("of no study", answer(inputs=()), OURS, "", None),
    ("another work", answer(code=("110005", "DCM")), OURS, "", None),
    ("the code of another scheme", answer(code=("110001", "99X")), OURS, "", None),
    ("any work", answer(code=("110005", "DCM")), (), "lungs", TASK),
    ("another label", answer(label="liver"), OURS, "lungs", None),
    ("no answer to the question", answer(state="COMPLETED"), OURS, "", None),
    ("without a UID", answer(step_uid=""), OURS, "", None),
    ("a name for its UID", answer(step_uid="Doe^Jane"), OURS, "", None),
    ("a name for its study", answer(inputs=("Doe^Jane",)), OURS, "", None),
]


@pytest.mark.parametrize(("made", "workitem", "label", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_which_tasks_are_ours(made: Dataset, workitem: ups.Workitem, label: str, expected: Task | None) -> None:
    assert ups.task(made, workitem, label) == expected


def test_an_answer_without_sequences_is_nobody_s() -> None:
    assert ups.task(Dataset(), OURS, "") is None


def test_the_question_asks_nothing_about_the_patient() -> None:
    question = ups.question(OURS, "lungs")
    assert question.ScheduledWorkitemCodeSequence[0].CodeValue == "110001"
    assert not [element for element in question if element.keyword.startswith(("Patient", "IssuerOf"))]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("agreed", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_patient_goes_as_it_came(syntax: UID, agreed: UID) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    source = Dataset()
    source.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    source.PatientName, source.PatientID, source.StudyInstanceUID = name, "P 4", "1.2.3"
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = syntax
    content = BytesIO()
    source.preamble = b"\0" * 128
    pydicom.dcmwrite(content, source, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    wanted = pydicom.dcmread(BytesIO(content.getvalue())).get_item(0x00100010).value
    image = Reference("1.2.3", "1.2.3.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3.1.1", ("NODE",))
    for step in (
        ups.scheduled(pydicom.dcmread(BytesIO(content.getvalue())), [image], OURS, "lungs", 1.7e9),
        mpps.begun(pydicom.dcmread(BytesIO(content.getvalue())), "2.25.123456789012345", "NODE", 1.7e9),
    ):
        sent = encode(step, agreed.is_implicit_VR, True)
        assert sent is not None
        came = decode(BytesIO(sent), agreed.is_implicit_VR, True)
        assert came.get_item(0x00100010).value == wanted
        assert str(came.PatientName) == name
        assert (came.PatientID, came.PatientBirthDate) == ("P 4", "")


def test_the_objects_of_a_series_stand_together() -> None:
    made = [Reference("1.2", series, "1.2.840.10008.5.1.4.1.1.7", f"{series}.{n}", ("A", "B"))
            for n, series in enumerate(("1.2.1", "1.2.2", "1.2.1"))]  # fmt: skip
    (performed,) = ups.completion("NODE", OURS, 0.0, 60.0, made).UnifiedProcedureStepPerformedProcedureSequence
    first, second = performed.OutputInformationSequence
    assert [str(one.ReferencedSOPInstanceUID) for one in first.ReferencedSOPSequence] == ["1.2.1.0", "1.2.1.2"]
    assert second.SeriesInstanceUID == "1.2.2"
    assert [one.RetrieveAETitle for one in first.DICOMRetrievalSequence] == ["A", "B"]
    assert performed.PerformedProcedureStepStartDateTime == "19700101000000+0000"


def test_a_series_of_reports_holds_no_images() -> None:
    report = Reference("1.2", "1.2.1", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.1.1", ("A",))
    (series,) = mpps.completed(0.0, [report]).PerformedSeriesSequence
    assert len(series.ReferencedNonImageCompositeSOPInstanceSequence) == 1
    assert len(series.ReferencedImageSequence) == 0
