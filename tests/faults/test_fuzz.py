"""The short form of `make fuzz`, the cases that it has found, and whether it would notice what it looks for."""

import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.conftest import ROOT
from tests.fuzz import mutate, node, watch
from tests.fuzz.__main__ import TARGETS
from tests.fuzz.target import Target, plain

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
#: Of these, so many cases; all of them in some twenty seconds.
SHORT = {
    "association": 120,
    "header": 3000,
    "command": 3000,
    "wildcard": 1000,
    "query": 100,
    "config": 40,
    "bundle": 4,
    "csv": 500,
    "slices": 25,
    "series": 40,
    "stow": 1000,
    "servers": 8,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the product logs of odd input, and pydicom warns of, is not what is looked at here."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_every_target_has_a_short_form() -> None:
    assert SHORT.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", SHORT)
def test_odd_input_raises_what_is_documented(name: str, tmp_path: Path) -> None:
    runs = SHORT[name]
    tallies, left = watch.fuzz([TARGETS[name]], "short", tmp_path, runs=runs, until=time.monotonic() + 300)
    assert [f"{f.why}: {f.path}" for f in tallies[name].failures.values()] == []
    assert left == []
    assert tallies[name].cases == runs


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.case")), ids=lambda path: path.stem)
def test_what_was_found_once_stays_mended(path: Path) -> None:
    name, _why, case = watch.stored(path)
    with watch.alarm(), TARGETS[name].opened() as run:
        why = watch.tried(TARGETS[name], run, case)
    assert not why


def test_a_running_node_is_the_same_afterwards(tmp_path: Path) -> None:
    assert node.attack(100, "short", tmp_path, time.monotonic() + 120) == 0


def test_the_same_seed_makes_the_same_cases() -> None:
    for target in TARGETS.values():
        made = [target.make(Random("seed")) for _ in range(2)]
        assert made[0] == made[1], target.name


def _odd(case: bytes) -> None:
    if case[0] == 1:
        raise KeyError("a case that fails")
    if case[0] == 2:
        threading.Event().wait(60)
    if case[0] == 3:
        raise ValueError("documented")


@pytest.mark.parametrize(("first", "why"), [(1, "KeyError at"), (2, "longer than"), (3, ""), (0, "")])
def test_what_is_looked_for_is_seen_and_replayed(
    first: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LONGEST_S", 0.2)
    target = Target("odd", lambda _rng: bytes((first,)), plain(_odd), (ValueError,))
    tallies, _ = watch.fuzz([target], "s", tmp_path, runs=3, until=time.monotonic() + 60)
    found = list(tallies["odd"].failures.values())
    assert len(found) == bool(why)
    if found:
        assert found[0].why.startswith(why)
        assert watch.stored(found[0].path) == ("odd", found[0].why, bytes((first,)))


def test_what_is_left_behind_is_seen(tmp_path: Path) -> None:
    with ExitStack() as held:

        def leaves(_case: bytes) -> None:
            held.enter_context((tmp_path / "x").open("w"))
            os.close(tempfile.mkstemp()[0])

        target = Target("leaves", lambda _rng: b"", plain(leaves))
        _, left = watch.fuzz([target], "s", tmp_path, runs=300, until=time.monotonic() + 60)
    assert any("descriptors grew" in text for text in left)
    assert any("was left in the temporary folder" in text for text in left)


def test_mutations_stay_small_and_are_often_taken() -> None:
    """A fuzzer whose cases all fail at the first byte finds nothing."""
    taken = 0
    with TARGETS["header"].opened() as run:
        for number in range(300):
            case = TARGETS["header"].make(Random(str(number)))
            assert len(case) <= mutate.LONGEST + 1
            try:
                run(case)
            except TARGETS["header"].expected:
                continue
            taken += 1
    assert 60 < taken < 290
