"""The pipeline: which study, and what stops a risk."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dicomnode.analysis import pipeline
from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Flag, Horizon, Risk
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.queries import PriorScan
from dicomnode.errors import RefusedError
from tests.helpers.ct_files import ct_series, write

METHOD = Method(ClassicalSegmenter(), None, None)


@dataclass(frozen=True)
class FixedBundle:
    """Stands for a bundle where the model itself is not what is tested; keeps what it was asked."""

    sha256: str = "ab" * 32
    reference: None = None
    lacking: str = ""
    asked: list[tuple[dict[str, float], PriorScan | None, dict[str, str]]] = field(default_factory=list)
    explained: list[bool] = field(default_factory=list)

    def predict(
        self,
        volume: Volume,
        labels: Labels,
        features: dict[str, float],
        prior: PriorScan | None,
        scanner: dict[str, str],
        *,
        explained: bool,
    ) -> Risk:
        assert volume.hu.shape == labels.shape
        self.explained.append(explained)
        self.asked.append((features, prior, scanner))
        if self.lacking:
            raise RefusedError(
                "features-missing", f"the model needs features that could not be measured: {self.lacking}"
            )
        doubt = Flag("scanner-unknown", "warning", "Different scanner.")
        codes = {"net-0.safetensors": (0.5, -1.0)}
        return Risk("fixed", self.sha256, "research", (Horizon(1, 0.1, 0.0, 0.2),), scan_codes=codes, flags=(doubt,))


WITH_RISK = replace(METHOD, bundle=cast(Bundle, FixedBundle()))


def chest(folder: Path, **attributes: object) -> list[Path]:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    return write(ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"], **attributes), folder)


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


def test_a_bundle_is_asked_with_numbers_scanner_and_the_prior_scan(tmp_path: Path) -> None:
    bundle = FixedBundle()
    method = replace(METHOD, bundle=cast(Bundle, bundle))
    person = {"PatientAge": "057Y", "PatientSex": "M", "Manufacturer": "GE", "ManufacturerModelName": "One"}
    person["ConvolutionKernel"] = "LUNG"
    first = analyse(chest(tmp_path / "a", StudyDate="20240101", **person), method).findings
    assert first.flags[-1].code == "scanner-unknown", "the prediction's doubts stand among the scan's"
    analyse(chest(tmp_path / "b", StudyDate="20250101", **person), method, priors=[first])
    (now, no_prior, scanner), (later, prior, _) = bundle.asked
    assert now["quantities.lungs.haa_percent"] == first.quantities["lungs"].haa_percent
    assert now["covariates.age_years"] == 57.0 and now["covariates.sex_male"] == 1.0
    assert scanner == {"manufacturer": "GE", "model": "One", "kernel_family": "lung"}
    assert no_prior is None and not [name for name in now if name.startswith("change.")]
    assert prior == PriorScan(pytest.approx(366 / 365.25), "ab" * 32, {"net-0.safetensors": (0.5, -1.0)})
    assert later["change.haa_percent"] == pytest.approx(0, abs=1e-6)
    assert bundle.explained == [False, False]


def test_numbers_that_the_model_needs_and_nobody_measured_withhold_the_risk(tmp_path: Path) -> None:
    bundle = FixedBundle(lacking="radiomics.left.original_glcm_Contrast")
    found = analyse(chest(tmp_path), replace(METHOD, bundle=cast(Bundle, bundle))).findings
    assert found.status == "analysed" and found.risk is None
    assert found.flags[-1].code == "risk-withheld" and found.flags[-1].severity == "error"
    assert found.flags[-1].text == (
        "No risk was predicted: the model needs features that could not be measured: "
        "radiomics.left.original_glcm_Contrast"
    )


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


def test_what_explains_a_risk_is_asked_for_and_makes_another_result(tmp_path: Path) -> None:
    bundle = FixedBundle()
    explaining = replace(METHOD, bundle=cast(Bundle, bundle), explanation=True)
    assert explaining.digest != WITH_RISK.digest
    assert replace(METHOD, explanation=True).digest == METHOD.digest, "without a bundle there is nothing to explain"
    analyse(chest(tmp_path), explaining)
    assert bundle.explained == [True]
