"""The kill campaign in its short form. The long one is `make faults`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import SCAN, Campaign


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "seed", "by"), [("sqlite", 11, "tls"), ("postgresql", 12, "c-store"), ("sqlite", 13, "stow")]
)
def test_a_dozen_kills_lose_nothing_and_double_nothing(
    data: Path, peer: Callable[[str, str], str], tmp_path: Path, database: str, seed: int, by: str
) -> None:
    if database == "postgresql":
        peer("initdb", "postgresql")
    source = data / SCAN
    campaign = Campaign(
        tmp_path,
        source,
        seed,
        postgresql=database == "postgresql",
        tls=by == "tls",
        stow=by == "stow",
        pause_s=1.0,
        most=1,
        say=print,
        audit=True,
    )
    verdict = campaign.run(6)
    print(verdict)
    assert verdict.faults == []
    assert verdict.studies >= 1
    assert verdict.events >= 4  # begun and transferred, in and out
    assert verdict.acknowledged >= 27
