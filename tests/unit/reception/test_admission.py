"""Places and rates, by caller and by address."""

from dicomnode.reception.admission import Admission, CallerLimits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_places_by_caller_address_and_in_all() -> None:
    admission = Admission(5, CallerLimits(3, 1000))
    mine = CallerLimits(2, 1000)
    assert [admission.admit(n, "A", "1", mine) is None for n in range(3)] == [True, True, False]
    assert [admission.admit(n, "B", "1", mine) is None for n in (3, 4)] == [True, False]
    assert [admission.admit(n, "A", "2", mine) is None for n in (5, 6, 7)] == [True, True, False]
    refused = admission.admit(8, "C", "3", mine)
    assert refused is not None
    assert "5 associations open" in refused.text
    assert (admission.leave(0), admission.leave(0), admission.leave(8)) == (True, False, False)
    assert admission.admit(9, "A", "1", mine) is None


def test_a_rate_is_a_minute_at_once_and_then_as_it_comes() -> None:
    clock = Clock()
    admission = Admission(1000, CallerLimits(1000, 60), clock)
    limits = CallerLimits(1000, 60)
    assert all(admission.admit(n, f"AE{n}", "1", limits) is None for n in range(60))
    refused = admission.admit(60, "MADE-UP", "1", limits)
    assert refused is not None
    assert refused.is_rate
    assert admission.admit(61, "A", "2", limits) is None
    clock.now = 1.0
    assert admission.admit(62, "A", "1", limits) is None
    assert admission.admit(63, "A", "1", limits) is not None


def test_made_up_titles_are_not_remembered_for_ever() -> None:
    admission = Admission(1, CallerLimits(1, 1_000_000))
    for number in range(10_000):
        assert admission.admit(number, f"AE{number}", "1", CallerLimits(1, 1_000_000)) is None
        admission.leave(number)
    assert len(admission._rates._buckets) <= 4096
    assert not admission._taken
