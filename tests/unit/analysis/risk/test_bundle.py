"""The shipped demonstration bundle: small, quick, marked as what it is, and it has learnt something."""

import hashlib
import shutil
import time
from pathlib import Path

import pytest
import torch

from dicomnode.analysis.findings import Risk
from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom.phantom import Disease, chest
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.analysis.risk.tabular import names_of
from dicomnode.errors import BundleError, RefusedError
from tests.conftest import ROOT
from tests.helpers.bundles import change

SHIPPED = ROOT / "weights" / "demo-synthetic"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    torch.set_num_threads(1)
    return load(SHIPPED, allow_demo=True)


def predicted(bundle: Bundle, seed: int, severity: float) -> Risk:
    """As the node asks: with the numbers that it has measured."""
    phantom = chest(seed, shape=(56, 64, 80), spacing_mm=(5.2, 4.2, 4.2), disease=Disease.of_severity(severity))
    measured = names_of(quantify.by_region(phantom.volume, phantom.labels), {})
    return bundle.predict(phantom.volume, phantom.labels, measured)


def test_the_shipped_bundle_is_small_and_quick(shipped: Bundle) -> None:
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 30e6
    start = time.process_time()
    load(SHIPPED, allow_demo=True)
    assert time.process_time() - start < 4
    assert shipped.name == "demo-synthetic" and shipped.intended_use == "synthetic-demo"


def test_risk_is_monotone_within_its_bounds_and_repeats(shipped: Bundle) -> None:
    for severity in (0.0, 0.5, 0.95):
        found = predicted(shipped, 2, severity)
        for h in found.horizons:
            assert 0 <= h.lower <= h.probability <= h.upper <= 1
        for name in ("lower", "probability", "upper"):
            values = [getattr(h, name) for h in found.horizons]
            assert values == sorted(values), name
        assert predicted(shipped, 2, severity) == found
        assert found.bundle_sha256 == shipped.sha256
        assert found.interval.startswith(
            "Spread of 3 models, not the certainty of the risk: their 2.5th to 97.5th percentiles"
        )
        assert "95 %" not in found.interval and "(resnet18: 1, radiomics: 3)" in found.interval
        assert len(found.slice_relevance) == 8


def test_the_shipped_model_has_learnt_severity(shipped: Bundle) -> None:
    risks = []
    for severity in (0.05, 0.45, 0.9):
        found = [predicted(shipped, seed, severity).horizons[2].probability for seed in (11, 12)]
        risks.append(sum(found) / 2)
    assert risks[0] < risks[1] < risks[2]


def test_without_what_was_measured_it_says_nothing(shipped: Bundle) -> None:
    phantom = chest(2, shape=(30, 40, 50), spacing_mm=(9.0, 7.0, 7.0))
    with pytest.raises(RefusedError, match="the model needs features that could not be measured: quantities"):
        shipped.predict(phantom.volume, phantom.labels)


def test_the_digest_is_over_model_toml(shipped: Bundle) -> None:
    assert shipped.sha256 == hashlib.sha256((SHIPPED / "model.toml").read_bytes()).hexdigest()


def test_a_demonstration_bundle_needs_leave() -> None:
    with pytest.raises(BundleError, match=r"for demonstration only.*analysis\.allow_demo_bundles = true"):
        load(SHIPPED, allow_demo=False)


def changed(folder: Path, old: str, new: str) -> Path:
    """A copy of the shipped bundle with other words in model.toml, and a seal that fits them."""
    copy = Path(shutil.copytree(SHIPPED, folder / "bundle"))
    change(copy, old, new)
    return copy


def test_a_research_bundle_needs_none(tmp_path: Path) -> None:
    copy = changed(tmp_path, '^intended_use = "synthetic-demo"$', 'intended_use = "research"')
    assert load(copy, allow_demo=False).intended_use == "research"


def test_another_preprocessing_gives_another_answer_to_the_golden_case(tmp_path: Path) -> None:
    copy = changed(tmp_path, r"^window_hu = \[-1024.0, 200.0\]$", "window_hu = [-1024.0, -900.0]")
    with pytest.raises(BundleError, match="does not reproduce its golden case"):
        load(copy, allow_demo=True)
