"""The catalogue's hashes are keyed, what they tell apart stays so, and the registry's pseudonyms do not move."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.errors import SpoolError
from dicomnode.registry_format.identity import NO_PATIENT_ID, count_patients, one_patient, patient_hash
from dicomnode.store.identity import same_patient
from dicomnode.store.patient_key import KEY_FILE, PatientKey, load, unkeyed

KEY = PatientKey(b"k" * 32)
HASHES = [patient_hash(i, issuer) for i in (b"1", b"2", b"") for issuer in (b"", b"A", b"B")]


def test_what_hashes_tell_apart_keyed_ones_do_too() -> None:
    for one in HASHES:
        for other in HASHES:
            pair = {KEY.keyed(one), KEY.keyed(other)}
            assert count_patients(pair) == count_patients({one, other})
            assert (one_patient(pair) is None) == (one_patient({one, other}) is None)
            assert same_patient(KEY.keyed(one), KEY.keyed(other)) == same_patient(one, other)


def test_nothing_of_the_plain_hash_is_left() -> None:
    plain = patient_hash(b"12345", b"12345")
    keyed = KEY.keyed(plain)
    assert len(keyed) == 64
    assert not {plain[:32], plain[32:]} & {keyed[:32], keyed[32:]}
    assert keyed[:32] != keyed[32:]  # an issuer is no ID
    assert PatientKey(b"l" * 32).keyed(plain) != keyed
    assert "kkkk" not in repr(KEY)
    assert KEY.keyed(NO_PATIENT_ID) == NO_PATIENT_ID


def test_the_key_is_made_once_and_is_its_owner_s(tmp_path: Path) -> None:
    made = load(tmp_path, None)
    assert load(tmp_path, None) == load(tmp_path, made.fingerprint) == made
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_another_key_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="is missing.*copy patient.key"):
        load(tmp_path, KEY.fingerprint)
    assert not (tmp_path / KEY_FILE).exists()
    load(tmp_path, None)
    with pytest.raises(SpoolError, match="not the key of this catalogue: copy patient.key"):
        load(tmp_path, KEY.fingerprint)
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(SpoolError, match="holds 5 bytes"):
        load(tmp_path, KEY.fingerprint)


def image(path: Path, patient_id: bytes, issuer: bytes = b"") -> Path:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.PatientID, made.IssuerOfPatientID = patient_id.decode("latin-1"), issuer.decode("latin-1")
    made.preamble, made.file_meta = bytes(128), FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=False)
    return path


@pytest.mark.parametrize(
    ("patient_id", "issuer"), [(b"12345", b""), (b"1234", b"HOSP"), ("Jörg-1".encode("latin-1"), b"")]
)
def test_the_hash_behind_a_keyed_one_is_found_in_an_image(tmp_path: Path, patient_id: bytes, issuer: bytes) -> None:
    plain, path = patient_hash(patient_id, issuer), image(tmp_path / "i.dcm", patient_id, issuer)
    assert unkeyed(KEY, KEY.keyed(plain), path) == plain
    assert unkeyed(KEY, KEY.keyed(patient_hash(b"another", issuer)), path) is None
    assert unkeyed(KEY, KEY.keyed(plain), tmp_path / "gone.dcm") is None
