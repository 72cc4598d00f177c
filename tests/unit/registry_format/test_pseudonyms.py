"""Pseudonyms: the same for the same patient, unlike for others, nothing without the key; no half a key file."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.errors import UsageError
from dicomnode.registry_format import pseudonyms
from dicomnode.registry_format.identity import patient_hash
from dicomnode.registry_format.pseudonyms import LONGEST_SHIFT_DAYS, Pseudonyms, is_pseudonym

NAMES = Pseudonyms(b"k" * 32)
DAYS = st.dates(date(1960, 1, 1), date(2090, 1, 1))


@given(st.binary(max_size=64), st.binary(max_size=64), DAYS, DAYS)
def test_dates_move_into_the_past_and_intervals_stay(patient_id: bytes, issuer: bytes, one: date, other: date) -> None:
    patient = NAMES.patient(patient_hash(patient_id, issuer))
    moved = NAMES.shifted(one, patient)
    assert moved - NAMES.shifted(other, patient) == one - other
    assert timedelta(1) <= one - moved <= timedelta(LONGEST_SHIFT_DAYS)


def test_patients_keys_and_uses_are_told_apart() -> None:
    hashes = [patient_hash(b"1", b""), patient_hash(b"2", b""), patient_hash(b"1", b"A"), patient_hash(b"1", b"B")]
    names = [n.patient(h) for n in (NAMES, Pseudonyms(b"l" * 32)) for h in hashes]
    assert len({*names, NAMES.scan(hashes[0])}) == 9
    assert all(map(is_pseudonym, names))
    assert len({NAMES.shift_days(str(i)) for i in range(200)}) > 150


def test_the_names_are_those_of_registries_that_exist() -> None:
    """A node that is upgraded must know its patients and scans again."""
    patient = NAMES.patient(patient_hash(b"12345 ", b"HOSPITAL"))
    assert (patient, NAMES.scan("1.2.3"), NAMES.shift_days(patient)) == (
        "5ee696648dc15a3bcfb8ba18480df0de",
        "05722d3dad44e31fd7cacee3ac2a33a3",
        2894,
    )


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry" / "pseudonyms.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: pseudonyms.load(path, "give up"), range(16)))
    assert len({names.key for names in made}) == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made[0].key.hex() not in repr(made[0])
    assert pseudonyms.load(tmp_path / "other.key", "give up") != made[0]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.hardlink_to"])
def test_a_kill_while_the_key_is_made_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    path = tmp_path / "registry.key"
    with monkeypatch.context() as patch:
        patch.setattr(step, kill)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # nothing is cleaned up by who is killed
        with pytest.raises(Killed):
            pseudonyms.load(path, "give up")
    assert not path.exists()
    assert len(pseudonyms.load(path, "give up").key) == 32


def test_the_key_is_on_the_disk_before_a_pseudonym_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr("os.fsync", fsync)
    pseudonyms.load(tmp_path / "registry.key", "give up")
    assert Path(synced[0]).name.startswith(".registry.key.")
    assert synced[1:] == [str(tmp_path)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"holds 0 bytes, a key has 32: restore the file .*; if there is none, remove it all"),
        (b"short", r"holds 5 bytes, a key has 32: restore the file"),
        (b"0a" * 32 + b"\n", "an older version made from DICOM files, .*: make the registry anew, under a new name"),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_cure(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "registry.key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        pseudonyms.load(path, "remove it all")
    path.unlink()
    assert pseudonyms.load(path, "remove it all")
