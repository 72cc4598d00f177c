"""Pseudonyms: the same for the same patient, unlike for others, nothing without the key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.errors import UsageError
from dicomnode.registry import pseudonyms
from dicomnode.registry.pseudonyms import KEY_FILE, Pseudonyms
from dicomnode.store.identity import patient_hash

NAMES = Pseudonyms(b"k" * 32)
DAYS = st.dates(date(1960, 1, 1), date(2090, 1, 1))


@given(st.binary(max_size=64), st.binary(max_size=64), DAYS, DAYS)
def test_intervals_of_a_patient_stay(patient_id: bytes, issuer: bytes, one: date, other: date) -> None:
    patient = NAMES.patient(patient_hash(patient_id, issuer))
    moved = NAMES.shifted(one, patient)
    assert moved - NAMES.shifted(other, patient) == one - other
    assert timedelta(1) <= one - moved <= timedelta(3650)


def test_patients_keys_and_uses_are_told_apart() -> None:
    hashes = [patient_hash(b"1", b""), patient_hash(b"2", b""), patient_hash(b"1", b"A"), patient_hash(b"1", b"B")]
    names = [n.patient(h) for n in (NAMES, Pseudonyms(b"l" * 32)) for h in hashes]
    assert len({*names, NAMES.scan(hashes[0])}) == 9
    assert len({NAMES.shift_days(str(i)) for i in range(200)}) > 150


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: pseudonyms.load(tmp_path / "registry"), range(16)))
    assert len({names.key for names in made}) == 1
    (file,) = (tmp_path / "registry").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made[0].key.hex() not in repr(made[0])


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(UsageError, match="has 5 bytes"):
        pseudonyms.load(tmp_path)
