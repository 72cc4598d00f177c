"""Which prior findings a scan is compared with."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.context.prior_findings import prior_findings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, JobState
from dicomnode.store.results_folder import results_folder
from tests.helpers import report_cases as cases

PATIENT = "a" * 64


class Known:
    """A catalogue and the results of what it holds."""

    def __init__(self, folder: Path) -> None:
        self.config = Config().resolved(folder)
        self.catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")

    def result(self, study_uid: str, state: JobState, findings: Findings | None, *, generation: int = 1) -> None:
        """One more generation of a study, which ended so."""
        uid = f"{study_uid}.{generation}"
        now = float(generation)
        self.catalog.record(Instance(uid, "1.2", study_uid, "1.3", f"/{uid}", uid, 1, now, None, PATIENT))
        self.catalog.settle(study_uid, now, None)
        if state not in ("queued", "superseded"):
            self.catalog.set_state(study_uid, generation, state, now=now)
        if findings is not None:
            folder = results_folder(self.config.storage.results, study_uid, generation)
            folder.mkdir(parents=True)
            (folder / "findings.json").write_text(findings.to_json(), "utf-8")

    def priors(self) -> list[Findings]:
        return prior_findings(self.catalog, self.config, "1.1")


@pytest.fixture
def known(tmp_path: Path) -> Known:
    made = Known(tmp_path)
    made.result("1.1", "running", None)
    return made


FOUND = cases.analysed(study_uid="1.2")


@pytest.mark.parametrize(
    ("state", "findings", "counts"),
    [
        ("analysed", FOUND, True),
        ("delivered", FOUND, True),
        ("committed", FOUND, True),
        ("failed", FOUND, True),  # it failed to deliver
        ("failed", None, False),  # it failed to analyse
        ("running", FOUND, False),
        ("cancelled", FOUND, False),
        ("refused", cases.refused(), False),
        ("queued", None, False),
    ],
)
def test_only_what_came_to_its_end_counts(
    known: Known, state: JobState, findings: Findings | None, counts: bool
) -> None:
    known.result("1.2", state, findings)
    assert known.priors() == ([FOUND] if counts else [])


def test_of_each_study_the_newest_result_counts(known: Known) -> None:
    newer = replace(FOUND, input_digest="ff" * 32)
    known.result("1.2", "delivered", FOUND)
    known.result("1.2", "delivered", newer, generation=2)
    assert known.priors() == [newer]
    known.result("1.2", "running", None, generation=3)
    assert known.priors() == [newer]
    known.catalog.set_state("1.2", 3, "refused", now=4.0)
    folder = results_folder(known.config.storage.results, "1.2", 3)
    folder.mkdir()
    (folder / "findings.json").write_text(cases.refused().to_json())
    assert known.priors() == []


def test_several_studies_in_the_order_of_their_uids(known: Known) -> None:
    for uid in ("1.4", "1.2", "1.3"):
        known.result(uid, "delivered", cases.analysed(study_uid=uid))
    assert [f.series.study_uid for f in known.priors() if f.series is not None] == ["1.2", "1.3", "1.4"]
