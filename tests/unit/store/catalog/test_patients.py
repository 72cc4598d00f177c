"""Whose a study is: never somebody else's, also after its images are gone."""

import pytest
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicomnode.registry_format.identity import NO_PATIENT_ID, count_patients, one_patient
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

ANNA, BERTA, HERE, THERE = "a" * 32, "b" * 32, "1" * 32, "2" * 32


@pytest.mark.parametrize(
    ("hashes", "patients", "patient"),
    [
        ([ANNA], 1, ANNA),
        ([ANNA, ANNA + HERE], 1, ANNA + HERE),
        ([ANNA + HERE, ANNA + THERE], 2, None),
        ([ANNA, BERTA], 2, None),
        ([NO_PATIENT_ID], 1, None),
        ([NO_PATIENT_ID + HERE], 1, None),
        ([NO_PATIENT_ID, ANNA], 1, ANNA),
        ([NO_PATIENT_ID + THERE, ANNA + HERE], 1, ANNA + HERE),
        ([NO_PATIENT_ID, ANNA, BERTA], 2, None),
        ([], 0, None),
    ],
)
def test_the_one_patient_of_a_study(hashes: list[str], patients: int, patient: str | None) -> None:
    assert count_patients(hashes) == patients
    assert one_patient(hashes) == patient


def receive(catalog: Catalog, study_uid: str, *hashes: str, now: float = 1.0) -> None:
    for number, patient_hash in enumerate(hashes):
        uid = f"{study_uid}.{now:g}.{number}"
        catalog.record(Instance(uid, "1.2", study_uid, "1.3", f"/{uid}", uid, 1, now, None, patient_hash))
    catalog.settle(study_uid, now, None)


def test_other_studies_are_the_same_patients_with_the_same_issuer(catalog: Catalog) -> None:
    receive(catalog, "1.1", ANNA + HERE, ANNA)
    receive(catalog, "1.2", ANNA + HERE)
    receive(catalog, "1.3", ANNA + THERE)
    receive(catalog, "1.4", ANNA)
    receive(catalog, "1.5", BERTA + HERE)
    receive(catalog, "1.6", NO_PATIENT_ID)
    receive(catalog, "1.7", NO_PATIENT_ID)
    receive(catalog, "1.8", ANNA)
    assert catalog.other_studies("1.1") == ["1.2"]
    assert catalog.other_studies("1.4") == ["1.8"]
    assert [catalog.other_studies(f"1.{n}") for n in (3, 5, 6, 7)] == [[], [], [], []]
    assert catalog.other_studies("9.9") == []


def test_a_key_object_does_not_say_whose_a_study_is(catalog: Catalog) -> None:
    """It refers to others, and bears the patient under whom these were: a rejection note the former one."""
    note = Instance("1.9", KeyObjectSelectionDocumentStorage, "1.1", "1.4", "/9", "9", 1, 1.0, None, BERTA)
    catalog.record(note)
    assert catalog.patient_ids("1.1") == 0
    receive(catalog, "1.1", ANNA, now=2.0)
    receive(catalog, "1.2", ANNA)
    assert catalog.patient_ids("1.1") == 1
    assert catalog.other_studies("1.2") == ["1.1"]


def test_a_second_patient_in_a_study_takes_it_away_from_the_first(catalog: Catalog) -> None:
    receive(catalog, "1.1", ANNA)
    receive(catalog, "1.2", ANNA)
    assert catalog.other_studies("1.1") == ["1.2"]
    receive(catalog, "1.2", BERTA, now=2.0)
    assert catalog.other_studies("1.1") == []


def test_a_study_is_known_after_its_images_were_removed_until_it_is_forgotten(catalog: Catalog) -> None:
    receive(catalog, "1.1", ANNA)
    receive(catalog, "1.2", ANNA)
    study = catalog.study("1.1")
    assert study is not None
    assert catalog.long_removed(100.0) == []
    assert catalog.release(study, lambda: None)
    assert catalog.other_studies("1.2") == ["1.1"]
    assert catalog.long_removed(0.5) == []
    assert catalog.long_removed(100.0) == ["1.1"]
    catalog.forget_patient("1.1")
    assert catalog.other_studies("1.2") == catalog.long_removed(100.0) == []
