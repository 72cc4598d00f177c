"""The kill campaign in its short form. The long one is `make faults`."""

import shutil
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign


@pytest.mark.slow
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 11), ("postgresql", 12)])
def test_a_dozen_kills_lose_nothing_and_double_nothing(data: Path, tmp_path: Path, database: str, seed: int) -> None:
    if database == "postgresql" and shutil.which("pg_ctl", path="/usr/lib/postgresql/15/bin") is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    source = data / "chest_tiny_cip" / "ct-64Dicom"
    campaign = Campaign(tmp_path, source, seed, postgresql=database == "postgresql", pause_s=1.0, most=1, say=print)
    verdict = campaign.run(6)
    print(verdict)
    assert verdict.faults == []
    assert verdict.studies >= 1
    assert verdict.acknowledged >= 27
