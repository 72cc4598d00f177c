"""The shipped demonstration bundle, and every way in which a bundle can be wrong: each refused with its own message."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dicomnode.analysis import shared_encoder
from dicomnode.analysis.bundle import Bundle, load
from dicomnode.analysis.phantom import Disease, chest
from dicomnode.errors import BundleError

SHIPPED = Path(__file__).resolve().parents[3] / "weights" / "demo-synthetic"
WEIGHTS = "resnet18.safetensors"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    torch.set_num_threads(1)
    return load(SHIPPED, allow_demo=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    changed, count = re.subn(old, lambda _: new, text, count=1, flags=re.MULTILINE)
    assert count == 1, f"{old} is not in {name}"
    (folder / name).write_text(changed, encoding="utf-8")


def seal(folder: Path, name: str) -> None:
    """Write the new digest of a changed file into model.toml, as a forger would."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit(folder, "model.toml", rf'^"{re.escape(name)}" = .*$', f'"{name}" = "{digest}"')


def test_the_shipped_bundle_is_small_and_quick(shipped: Bundle) -> None:
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 30e6
    start = time.process_time()
    load(SHIPPED, allow_demo=True)
    assert time.process_time() - start < 4
    assert shipped.name == "demo-synthetic" and shipped.intended_use == "synthetic-demo"


def test_risk_is_monotone_within_its_bounds_and_repeats(shipped: Bundle) -> None:
    for severity in (0.0, 0.5, 0.95):
        phantom = chest(2, shape=(56, 64, 80), spacing_mm=(5.2, 4.2, 4.2), disease=Disease.of_severity(severity))
        found = shipped.predict(phantom.volume, phantom.labels)
        for h in found.horizons:
            assert 0 <= h.lower <= h.probability <= h.upper <= 1
        for name in ("lower", "probability", "upper"):
            values = [getattr(h, name) for h in found.horizons]
            assert values == sorted(values), name
        assert shipped.predict(phantom.volume, phantom.labels) == found
        assert found.bundle_sha256 == shipped.sha256
        assert "95 % percentile interval" in found.interval and "16 model heads" in found.interval


def test_the_shipped_model_has_learnt_severity(shipped: Bundle) -> None:
    risks = []
    for severity in (0.05, 0.45, 0.9):
        scans = [
            chest(seed, shape=(56, 64, 80), spacing_mm=(5.2, 4.2, 4.2), disease=Disease.of_severity(severity))
            for seed in (11, 12)
        ]
        risks.append(sum(shipped.predict(p.volume, p.labels).horizons[2].probability for p in scans) / 2)
    assert risks[0] < risks[1] < risks[2]


def test_the_digest_is_over_model_toml(shipped: Bundle) -> None:
    assert shipped.sha256 == hashlib.sha256((SHIPPED / "model.toml").read_bytes()).hexdigest()


def test_a_demonstration_bundle_needs_leave() -> None:
    with pytest.raises(BundleError, match=r"for demonstration only.*analysis\.allow_demo_bundles = true"):
        load(SHIPPED, allow_demo=False)


def test_a_research_bundle_needs_none(copy: Path) -> None:
    edit(copy, "model.toml", "^intended_use = .*$", 'intended_use = "research"')
    assert load(copy, allow_demo=False).intended_use == "research"


@pytest.mark.parametrize("name", ["model.toml", WEIGHTS, "golden.json", "golden.safetensors", "MODEL_CARD.md"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is missing"):
        load(copy, allow_demo=True)


@pytest.mark.parametrize("name", [WEIGHTS, "golden.json", "golden.safetensors", "MODEL_CARD.md"])
def test_one_changed_byte_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is not the file that model\.toml names"):
        load(copy, allow_demo=True)


def negate_heads(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    save_file({k: -v if "hazard.bias" in k else v for k, v in state.items()}, folder / WEIGHTS)
    seal(folder, WEIGHTS)


def expect_more(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["expected"][1]["upper"] += 0.02
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder, "golden.json")


def expect_other_years(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["expected"].pop()
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder, "golden.json")


def other_window(folder: Path) -> None:
    edit(folder, "model.toml", r"^window_hu = .*$", "window_hu = [-1024.0, 600.0]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (negate_heads, "does not reproduce its golden case at 1 years"),
        (expect_more, "does not reproduce its golden case at 3 years"),
        (other_window, "does not reproduce its golden case"),
        (expect_other_years, "expected is not for the years"),
    ],
)
def test_a_wrong_answer_to_the_golden_case_is_found(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message):
        load(copy, allow_demo=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"^name = .*$", 'name = "x"\ncolour = "blue"', "colour: Extra inputs are not permitted"),
        (r"^slab_mm = .*$", "slab_mm = 5.0\nsharpen = 2", "unknown or missing key: sharpen"),
        (r"^version = 1$", "version = 2", "version is 2: this dicomnode knows version 1"),
        (r"^format = .*$", "format = 3", "does not match any of the expected tags: 1, 2"),
        (
            r"^intended_use = .*$",
            'intended_use = "clinical"',
            "intended_use: Input should be 'synthetic-demo' or 'research'",
        ),
        (r"^horizons_years = .*$", "horizons_years = [1, 4, 7]", r"horizons \[7\] are no interval edges"),
        (r"^horizons_years = .*$", "horizons_years = [3, 1]", "must rise"),
        (r"^slope = .*$", "slope = -1.0", "calibration.slope: Input should be greater than 0"),
        (r"^heads = .*$", "heads = 15", "does not hold a resnet18 with 15 heads"),
        (r"^backbone = .*$", 'backbone = "vgg"', "arms.0.backbone: Value error, 'vgg' is not one of"),
        (r"^weights = .*$", 'weights = "../../etc/passwd"', "must be a file name in the bundle's own folder"),
        (r"^weights = .*$", 'weights = "other.safetensors"', "files lacks the sha256 of other.safetensors"),
        (r'^"golden.safetensors" = .*$', "", "files lacks the sha256 of golden.safetensors"),
        (r"^limits = .*$", "limits = [", "model.toml: "),
    ],
)
def test_a_wrong_model_toml_is_refused_with_the_place(copy: Path, old: str, new: str, message: str) -> None:
    edit(copy, "model.toml", old, new)
    with pytest.raises(BundleError, match=message):
        load(copy, allow_demo=True)


def test_weights_that_are_no_safetensors_are_refused(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(b"pickle")
    seal(copy, WEIGHTS)
    with pytest.raises(BundleError, match="does not hold a resnet18"):
        load(copy, allow_demo=True)


def test_bounds_give_way_to_the_mean(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """With very unequal heads the mean can lie above the 97.5th percentile; the interval then reaches to it."""
    logits = torch.full((100, 1, 5), -12.0)
    logits[:2] = 2.0
    monkeypatch.setattr(shared_encoder, "member_logits", lambda heads, features: logits)
    phantom = chest(2, shape=(30, 40, 50), spacing_mm=(9.0, 7.0, 7.0))
    for h in shipped.predict(phantom.volume, phantom.labels).horizons:
        assert h.lower <= h.probability <= h.upper
