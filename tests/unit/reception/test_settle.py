"""The settle rule: a table of what hospitals do, and random studies."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.reception.settle import SettleRule, decide, is_broken_off
from dicomnode.store.records import Bringer, Closed, SeriesIntake, StudyIntake

RULE = SettleRule(release_s=5.0, quiet_s=60.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
LAST = 1000.0


def series(positions: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0), **changes: object) -> SeriesIntake:
    made = SeriesIntake("1.2.3", "CT", frozenset({CT}), len(positions), frozenset({"1\\0\\0\\0\\1\\0"}), positions)
    return replace(made, **changes)  # type: ignore[arg-type]


def study(*parts: SeriesIntake, closed: tuple[Closed | None, ...] = ("released",), last: float = LAST) -> StudyIntake:
    bringers = tuple(Bringer(how, None if how is None else last + 1.0, last) for how in closed)
    return StudyIntake("1.2", last, bringers, parts or (series(),))


LOCALIZER = series((0.0, 0.0), series_uid="1.2.4", orientations=frozenset({"a", "b"}))
DOSE = SeriesIntake("1.2.5", "SR", frozenset({SR}), 1, frozenset(), ())


@pytest.mark.parametrize(
    ("case", "waits_s"),
    [
        pytest.param(study(), 6.0, id="complete and released one second after the last image"),
        pytest.param(study(LOCALIZER, series(), DOSE), 6.0, id="localizer and dose report don't matter"),
        pytest.param(study(closed=("released", "released")), 6.0, id="two associations, both released"),
        pytest.param(study(closed=(None,)), 60.0, id="open and silent: not for ever"),
        pytest.param(study(closed=("released", None)), 60.0, id="one of two still open"),
        pytest.param(study(closed=("aborted",)), 60.0, id="aborted"),
        pytest.param(study(closed=("lost",)), 60.0, id="the receiver died"),
        pytest.param(study(closed=()), 60.0, id="no association known"),
        pytest.param(study(series((0.0, 1.0, 3.0, 4.0))), 60.0, id="a slice is missing"),
        pytest.param(study(series((0.0, 1.25, 2.4, 3.6))), 6.0, id="not quite uniform"),
        pytest.param(study(series((3.0, 0.0, 2.0, 1.0))), 6.0, id="in any order"),
        pytest.param(study(series((0.0, 1.0, 1.0, 2.0))), 60.0, id="repeated position: perhaps two phases"),
        pytest.param(study(series((0.0, 1.0))), 60.0, id="two slices show no gap"),
        pytest.param(study(series(instances=5)), 60.0, id="an image without a position"),
        pytest.param(study(series(orientations=frozenset({"a", "b"}))), 60.0, id="two orientations"),
        pytest.param(study(DOSE), 60.0, id="no CT"),
        pytest.param(study(series((), sop_class_uids=frozenset({ENHANCED_CT}), instances=1)), 6.0, id="enhanced CT"),
    ],
)
def test_waits_exactly_so_long(case: StudyIntake, waits_s: float) -> None:
    before = decide(case, LAST + waits_s - 0.001, RULE)
    assert not before.settled
    assert before.due == pytest.approx(LAST + waits_s)
    after = decide(case, LAST + waits_s, RULE)
    assert after.settled
    assert after.due is None


def test_last_image_may_come_after_another_association_was_released() -> None:
    case = replace(study(), last_seen=LAST + 30.0)
    assert decide(case, LAST + 30.0, RULE).due == LAST + 35.0


@pytest.mark.parametrize("ahead_s", [1.0, 3_600.0, 1e9])
def test_clock_set_back_neither_settles_at_once_nor_waits_for_the_old_time(ahead_s: float) -> None:
    decision = decide(study(), LAST - ahead_s, RULE)
    assert not decision.settled
    assert decision.due == LAST - ahead_s + RULE.release_s


times = st.floats(-1e6, 1e6)
intakes = st.builds(
    StudyIntake,
    study_uid=st.just("1.2"),
    last_seen=times,
    bringers=st.lists(
        st.builds(
            lambda closed, at, last: Bringer(closed, None if closed is None else at, last),
            st.sampled_from([None, "released", "aborted", "lost"]),
            times,
            times,
        ),
        max_size=3,
    ).map(tuple),
    series=st.lists(
        st.builds(
            SeriesIntake,
            series_uid=st.just("1.2.3"),
            modality=st.just("CT"),
            sop_class_uids=st.sampled_from([frozenset({CT}), frozenset({ENHANCED_CT}), frozenset({SR})]),
            instances=st.integers(1, 6),
            orientations=st.sampled_from([frozenset[str](), frozenset({"a"})]),
            positions=st.lists(st.floats(-1000, 1000), max_size=6).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
)


@given(intakes, times)
def test_always_ends_and_asking_at_due_settles(case: StudyIntake, now: float) -> None:
    decision = decide(case, now, RULE)
    if decision.settled:
        assert now >= case.last_seen + min(RULE.release_s, RULE.quiet_s)
        return
    assert decision.due is not None
    assert now < decision.due <= now + RULE.quiet_s
    # At `due` it settles, once the catalogue has pulled times of the future back to the present.
    pulled = replace(
        case,
        last_seen=min(case.last_seen, now),
        bringers=tuple(
            replace(one, closed_at=None if one.closed_at is None else min(one.closed_at, now)) for one in case.bringers
        ),
    )
    assert decide(pulled, decision.due, RULE).settled


@given(st.permutations([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), st.integers(1, 4))
def test_any_missing_inner_slice_is_seen(order: list[float], missing: int) -> None:
    positions = tuple(position for position in order if position != missing)
    assert decide(study(series(positions)), LAST + 30.0, RULE).reason == "gap between slices"


def test_a_transfer_is_broken_off_where_the_last_association_was_aborted() -> None:
    assert is_broken_off(study(closed=("aborted",)))
    assert is_broken_off(study(closed=("lost",)))
    assert not is_broken_off(study(closed=("released",)))
    assert not is_broken_off(study(closed=(None,)))
    first, again = Bringer("aborted", LAST - 9, LAST - 9), Bringer("released", LAST, LAST)
    assert not is_broken_off(replace(study(), bringers=(first, again)))
    assert is_broken_off(replace(study(), bringers=(replace(first, last_seen=LAST + 1), again)))
