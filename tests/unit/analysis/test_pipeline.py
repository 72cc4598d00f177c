"""The pipeline: which study, and what stops a risk."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dicomnode.analysis import phantom, pipeline
from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.bundle import Bundle
from dicomnode.analysis.classical_segmenter import ClassicalSegmenter
from dicomnode.analysis.findings import Horizon, Risk
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.errors import RefusedError
from tests.ct_files import ct_series, write

METHOD = Method(ClassicalSegmenter(), None, None)


@dataclass(frozen=True)
class FixedBundle:
    """Stands for a bundle where the model itself is not what is tested."""

    sha256: str = "ab" * 32

    def predict(self, volume: Volume, labels: Labels) -> Risk:
        assert volume.hu.shape == labels.shape
        return Risk("fixed", self.sha256, "research", (Horizon(1, 0.1, 0.0, 0.2),))


WITH_RISK = replace(METHOD, bundle=cast(Bundle, FixedBundle()))


def chest(folder: Path) -> list[Path]:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    return write(ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"]), folder)


def test_a_chest_is_analysed(tmp_path: Path) -> None:
    stages: list[str] = []
    found = analyse(chest(tmp_path), WITH_RISK, lambda stage, _: stages.append(stage))
    assert found.findings.status == "analysed"
    assert found.findings.risk is not None
    assert list(dict.fromkeys(stages)) == ["load", "segment", "quantify", "risk"]
    assert set(found.findings.timings_s) == {"load", "segment", "quantify", "radiomics", "risk"}
    assert len(found.headers) == 60
    assert found.labels_in_source.shape == (60, 96, 96)
    assert len(found.findings.input_digest) == len(found.findings.algorithm_digest) == 64


def test_an_error_flag_withholds_the_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = pipeline.Flag("lung-volume-low", "error", "There is hardly any lung.")
    monkeypatch.setattr(pipeline.lungs, "check", lambda *_: (flag,))
    found = analyse(chest(tmp_path), WITH_RISK).findings
    assert found.risk is None
    assert [f.code for f in found.flags][-2:] == ["lung-volume-low", "risk-withheld"]


def test_of_several_studies_the_one_with_a_chest_is_taken(tmp_path: Path) -> None:
    files = chest(tmp_path / "a") + write(ct_series(BodyPartExamined="HEAD"), tmp_path / "b")
    found = analyse(files, METHOD).findings
    assert found.status == "analysed"
    assert {r.code for s in found.rejected for r in s.reasons} >= {"not-chest"}


def test_two_suitable_studies_are_a_doubt(tmp_path: Path) -> None:
    found = analyse(chest(tmp_path / "a") + chest(tmp_path / "b"), METHOD).findings
    assert found.status == "refused"
    assert [r.code for s in found.rejected for r in s.reasons] == ["several-studies", "several-studies"]


def test_no_lungs_are_a_refusal_with_the_series_named(tmp_path: Path) -> None:
    class Blind:
        name, version = "blind", "1"

        def __call__(self, volume: Volume) -> Labels:
            raise RefusedError("no-lungs", "No lungs were found.")

    found = analyse(chest(tmp_path), replace(METHOD, segmenter=Blind())).findings
    assert found.status == "refused"
    assert [r.code for s in found.rejected for r in s.reasons] == ["no-lungs"]


def test_nothing_given_is_refused() -> None:
    assert analyse([], METHOD).findings.status == "refused"


def test_the_method_decides_the_digest() -> None:
    digests = {METHOD.digest, WITH_RISK.digest, replace(METHOD, radiomics_settings={"setting": {}}).digest}
    assert len(digests) == 3
