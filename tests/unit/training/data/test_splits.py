"""A patient stands on one side only, whatever the number of scans."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import PARTS, Split, by_patient

FRACTIONS = (0.5, 0.2, 0.3)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=80), st.integers(0, 5))
def test_every_scan_falls_in_one_part_with_all_of_its_patient(scans: list[tuple[int, bool]], seed: int) -> None:
    patients = [f"P{p}" for p, _ in scans]
    split = by_patient(patients, np.array([e for _, e in scans]), seed, FRACTIONS)
    rows = [split.rows(part, patients) for part in PARTS]
    assert sorted(np.concatenate(rows)) == list(range(len(scans)))
    sides = [{patients[i] for i in part} for part in rows]
    assert sum(map(len, sides)) == len(set(patients))


def test_deaths_are_shared_out() -> None:
    patients = [f"P{i}" for i in range(200)]
    died = np.arange(200) < 40
    split = by_patient(patients, died, 1, FRACTIONS)
    assert [int(died[split.rows(part, patients)].sum()) for part in PARTS] == [20, 8, 12]
    assert [len(split.parts[part]) for part in PARTS] == [100, 40, 60]


def test_a_patient_on_both_sides_is_an_error() -> None:
    with pytest.raises(AssertionError, match="both sides"):
        Split(1, {"train": ("a", "b"), "test": ("b",)})


def test_the_digest_is_that_of_the_file_and_hangs_on_the_seed(tmp_path: Path) -> None:
    import hashlib

    patients, died = [f"P{i}" for i in range(20)], np.zeros(20, bool)
    one, again, other = (by_patient(patients, died, seed, FRACTIONS) for seed in (1, 1, 2))
    one.save(tmp_path / "split.json")
    assert one.sha256 == again.sha256 == hashlib.sha256((tmp_path / "split.json").read_bytes()).hexdigest()
    assert one.sha256 != other.sha256
    assert set(json.loads((tmp_path / "split.json").read_text())["parts"]) == set(PARTS)


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (1.0, 0.0, 0.0)])
def test_fractions_must_be_shares(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        by_patient(["a"], np.array([True]), 1, fractions)
