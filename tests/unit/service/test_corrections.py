"""Studies that were compared with a scan which was corrected since: analysed again where that makes them wrong."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.service.corrections import follow
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import results_folder
from tests.helpers import report_cases as cases

ONE, OTHER = "a" * 64, "b" * 64
PRIOR = cases.analysed(study_uid="1.2.1")
POINT = replace(cases.scanned_before(1)[0], version=PRIOR.version)
LATER = cases.analysed(study_uid="1.9", change=cases.changed(), trend=(POINT,))


class Site:
    """A prior scan, and a later one that was compared with it."""

    def __init__(self, folder: Path) -> None:
        self.config = Config().resolved(folder)
        self.catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
        for study_uid, findings in (("1.2.1", PRIOR), ("1.9", LATER)):
            self.catalog.record(_image(study_uid))
            self.result(study_uid, 1, findings)

    def result(self, study_uid: str, generation: int, findings: Findings) -> None:
        now = float(generation)
        self.catalog.settle(study_uid, now, None)
        self.catalog.set_state(study_uid, generation, "delivered", now=now)
        folder = results_folder(self.config.storage.results, study_uid, generation)
        folder.mkdir(parents=True)
        (folder / "findings.json").write_text(findings.to_json(), "utf-8")

    def correct(self, **changes: str) -> None:
        new = replace(_image("1.2.1"), sha256="f" * 64, **changes)  # type: ignore[arg-type]
        assert len(self.catalog.replace_instances([new], "accepted", "me", now=200.0)) == 1

    def follow(self) -> list[str]:
        return follow(self.config, self.catalog)


def _image(study_uid: str) -> Instance:
    return Instance(f"{study_uid}.1", "1.2", study_uid, "1.3", f"/{study_uid}", study_uid, 1, 1.0, None, ONE)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.catalog.close()


def test_a_prior_scan_that_becomes_somebody_elses_is_followed_once_it_has_ended(site: Site) -> None:
    assert site.follow() == []
    site.correct(patient_hash=OTHER)
    assert site.follow() == []  # it is still receiving
    site.result("1.2.1", 2, replace(PRIOR, input_digest="77" * 32))
    assert site.follow() == ["1.9"]
    assert site.follow() == []
    study = site.catalog.study("1.9")
    assert study is not None
    assert study.state == "receiving"


@pytest.mark.parametrize(("findings", "followed"), [(PRIOR, []), (replace(PRIOR, input_digest="77" * 32), ["1.9"])])
def test_a_correction_of_the_same_patients_scan_is_followed_where_its_result_differs(
    site: Site, findings: Findings, followed: list[str]
) -> None:
    site.correct()
    site.result("1.2.1", 2, findings)
    assert site.follow() == followed


def test_a_prior_scan_that_was_taken_out_is_followed(site: Site) -> None:
    site.catalog.take_out("1.2.1", ["1.2.1.1"], "dropped", "me", "113001", now=200.0)
    site.result("1.2.1", 2, cases.refused())
    assert site.follow() == ["1.9"]


def test_a_study_that_is_on_its_way_again_anyway_is_let_alone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.correct(patient_hash=OTHER)
    site.result("1.2.1", 2, replace(PRIOR, input_digest="77" * 32))
    assert site.catalog.reopen("1.9")  # by another node, or by an image that came
    assert site.follow() == []
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
