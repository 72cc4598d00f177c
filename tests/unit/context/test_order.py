"""Exactly one order that agrees, or none and a flag."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.config import Config, WorklistTable
from dicomnode.context import order, worklist_query
from dicomnode.context.order import Identity, Linkage, match
from dicomnode.network import find
from dicomnode.report import source
from dicomnode.results import reader_flags
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order
from dicomnode.store.identity import patient_hash, same_patient
from dicomnode.store.results_folder import RECEPTION
from tests.helpers import report_cases as cases
from tests.helpers.answering import Answering
from tests.helpers.ports import free_port

HERE, THERE = patient_hash(b"P1", b"HOSP1"), patient_hash(b"P1", b"HOSP2")
NO_ISSUER, OTHER, NOBODY = patient_hash(b"P1 ", b""), patient_hash(b"P2", b"HOSP1"), patient_hash(b"", b"HOSP1")
STUDY = Identity(HERE, "1.2.3", "")


def an_order(key: str = "k", patient: str = HERE, study_uid: str = "1.2.3", accession: str = "A1") -> Order:
    return Order(key, patient, study_uid, accession, "20260101 101500", key.encode(), 0.0)


MATCHES = [
    ("the one", STUDY, [an_order()], "linked"),
    ("no list", STUDY, [], "not-found"),
    ("another study of the patient", STUDY, [an_order(study_uid="1.2.4")], "not-found"),
    ("same ID of another issuer", STUDY, [an_order(patient=THERE)], "contradicts"),
    ("issuer known on one side only", STUDY, [an_order(patient=NO_ISSUER)], "linked"),
    ("another patient", STUDY, [an_order(patient=OTHER)], "contradicts"),
    ("no Patient ID", Identity(NOBODY, "1.2.3", ""), [an_order(patient=NOBODY)], "contradicts"),
    ("two orders of the study", STUDY, [an_order("k"), an_order("l", accession="A2")], "ambiguous"),
    ("the same order twice", STUDY, [an_order(), an_order()], "linked"),
    ("two orders of the day", STUDY, [an_order(), an_order("l", study_uid="1.2.4")], "linked"),
    ("one agrees, one is another's", STUDY, [an_order(), an_order("l", patient=OTHER)], "linked"),
    ("its own number agrees", replace(STUDY, accession_number="A1"), [an_order()], "linked"),
    ("its own number differs", replace(STUDY, accession_number="A9"), [an_order()], "contradicts"),
    ("order without a number", replace(STUDY, accession_number="A9"), [an_order(accession="")], "linked"),
    ("its number, another study", replace(STUDY, accession_number="A1"), [an_order(study_uid="9")], "contradicts"),
    ("neither has a number", STUDY, [an_order(study_uid="9", accession="")], "not-found"),
]


@pytest.mark.parametrize(("study", "orders", "outcome"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_match(study: Identity, orders: list[Order], outcome: str) -> None:
    found = match(study, orders)
    assert found.outcome == outcome
    assert bool(found.content) == (outcome == "linked")


PATIENTS = st.sampled_from([HERE, THERE, NO_ISSUER, OTHER, NOBODY])
ORDERS = st.lists(
    st.builds(
        an_order, st.sampled_from("klm"), PATIENTS, st.sampled_from(["1.2.3", "1.2.4"]), st.sampled_from(["A1", ""])
    )
)


@settings(deadline=None)
@given(PATIENTS, ORDERS)
def test_what_is_linked_agrees_in_patient_and_study(patient: str, orders: list[Order]) -> None:
    found = match(Identity(patient, "1.2.3", ""), orders)
    if found.outcome == "linked":
        (one,) = {o.key for o in orders if o.study_uid == "1.2.3" and same_patient(o.patient_hash, patient)}
        assert found.content == one.encode()
        assert not patient.startswith(NOBODY[:32])


@pytest.mark.parametrize("outcome", ["linked", "not-found", "ambiguous", "contradicts", "unreachable"])
def test_every_outcome_but_a_named_order_is_flagged(outcome: order.Outcome) -> None:
    (code,) = Linkage(outcome).flags
    assert code in reader_flags.FLAGS
    assert Linkage("named").flags == ()


def test_an_order_that_the_ris_has_dropped_is_no_doubt_where_the_images_have_its_number() -> None:
    assert Linkage("not-found", has_accession_number=True).flags == ()
    assert Linkage("unreachable", has_accession_number=True).flags == ("worklist-unreachable",)


# With a provider


@pytest.fixture
def ris() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def configured(folder: Path, port: int, **more: object) -> Config:
    table = WorklistTable(ae_title="RIS", host="127.0.0.1", port=port, timeout_s=3.0, **more)  # type: ignore[arg-type]
    return Config(worklist=table).resolved(folder)


def image(folder: Path, **attributes: object) -> Path:
    header = cases.synthetic(1)[0]
    del header.RequestAttributesSequence
    header.AccessionNumber = None
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    path = folder / "image.dcm"
    path.write_bytes(cases.to_bytes(header))
    return path


def item(**attributes: object) -> Dataset:
    made = Dataset()
    made.PatientID, made.IssuerOfPatientID, made.StudyInstanceUID = "PAT-0001", "HOSPITAL", "1.2.3"
    made.AccessionNumber, made.RequestedProcedureID = "RIS1", "RP1"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def decide(config: Config, path: Path) -> Linkage:
    catalog = Catalog.open(f"sqlite:///{path.parent}/catalog.db")
    try:
        found = order.decide(config, catalog, path, path.parent)
    finally:
        catalog.close()
    assert found is not None
    return found


def test_the_patient_is_asked_for_and_the_answer_remembered(ris: Answering, tmp_path: Path) -> None:
    ris.find = lambda _event: iter([(0xFF00, item()), (0xFF00, item(StudyInstanceUID="9.9", AccessionNumber="X"))])
    config, path = configured(tmp_path, ris.port), image(tmp_path)
    found = decide(config, path)
    assert found.outcome == "linked"
    assert found.order is not None
    assert found.order.AccessionNumber == "RIS1"
    assert ris.asked[0].PatientID == "PAT-0001"
    assert not ris.asked[0].AccessionNumber
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    mine = catalog.patient_key.keyed(patient_hash(b"PAT-0001", b"HOSPITAL"))
    assert len(catalog.orders_like(mine, "", "")) == 2
    catalog.close()


def test_the_accession_number_is_asked_for_where_there_is_one(ris: Answering, tmp_path: Path) -> None:
    ris.find = lambda _event: iter([(0xFF00, item())])
    assert decide(configured(tmp_path, ris.port), image(tmp_path, AccessionNumber="RIS1")).outcome == "linked"
    assert ris.asked[0].AccessionNumber == "RIS1"
    assert not ris.asked[0].PatientID


def test_an_image_that_names_its_order_is_trusted_and_nobody_asked(ris: Answering, tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP7"
    path = image(tmp_path, RequestAttributesSequence=[request])
    assert decide(configured(tmp_path, ris.port), path) == Linkage("named")
    assert ris.asked == []


@pytest.mark.parametrize("patient_id", ["", "P*", "P?1"])
def test_nobody_is_asked_for_by_a_wild_card(patient_id: str, ris: Answering, tmp_path: Path) -> None:
    """An empty key would be answered with the whole list."""
    assert worklist_query.of_study(Dataset()) is None
    assert decide(configured(tmp_path, ris.port), image(tmp_path, PatientID=patient_id)).outcome == "not-found"
    assert ris.asked == []


def test_a_decision_stays(ris: Answering, tmp_path: Path) -> None:
    path = image(tmp_path)
    assert decide(configured(tmp_path, free_port()), path).outcome == "unreachable"
    ris.find = lambda _event: iter([(0xFF00, item())])
    assert decide(configured(tmp_path, ris.port), path).outcome == "unreachable"
    assert ris.asked == []


def test_without_a_worklist_nothing_is_decided(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    assert order.decide(Config(), catalog, tmp_path / "none.dcm", tmp_path) is None
    assert list(tmp_path.glob("*.json")) == []
    catalog.close()


# Flags and digest


def test_flags_replace_those_of_an_earlier_call() -> None:
    plain = cases.analysed()
    first = reader_flags.noted(plain, ["order-not-found", "priors-late"])
    assert [f.code for f in first.flags] == ["thick", "contrast", "order-not-found", "priors-late"]
    second = reader_flags.noted(first, ["order-from-worklist"], b"order")
    assert [f.code for f in second.flags] == ["thick", "contrast", "order-from-worklist"]
    assert reader_flags.noted(second, []) == plain
    digests = {plain.surroundings_digest, first.surroundings_digest, second.surroundings_digest}
    assert len(digests) == 3
    assert reader_flags.noted(plain, ["order-from-worklist"], b"other").surroundings_digest not in digests


def test_what_was_noted_at_the_settling_becomes_flags(tmp_path: Path) -> None:
    assert reader_flags.of_reception(tmp_path) == ()
    (tmp_path / RECEPTION).write_text('{"listed": 79, "arrived": 36, "broken_off": true}', "utf-8")
    flags = reader_flags.of_reception(tmp_path)
    assert [f.code for f in flags] == ["images-missing", "transfer-broken-off"]
    assert flags[0].text == "The PACS lists 79 images, 36 arrived: 43 missing."
    plain = cases.analysed()
    told = reader_flags.noted(plain, [], reception=flags)
    assert told.version != plain.version
    assert reader_flags.noted(told, []) == plain


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.filterwarnings("ignore:Value")
def test_odd_values_of_a_worklist_end_no_report() -> None:
    item, image = Dataset(), Dataset()
    image.StudyInstanceUID = item.StudyInstanceUID = "1.2.3"
    item.AccessionNumber, item.RequestedProcedureID = "A1", "R" * 17
    item.RequestedProcedureDescription = "a description that is longer than any description may be, by far and away"
    item.add(DataElement("PlacerOrderNumberImagingServiceRequest", "SQ", [Dataset()]))
    found = Linkage("linked", find._as_file(item, ExplicitVRLittleEndian)).order
    assert found is not None
    (request,) = source.requests(image, found)
    assert not request.RequestedProcedureID
    assert not request.RequestedProcedureDescription
    assert not request.PlacerOrderNumberImagingServiceRequest
    assert source.order_bytes(found, image)
