"""What the node serves changes only with the gate's consent to exactly this step, and can be taken back."""

import fcntl
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from dicomnode.analysis.risk.load_bundle import read
from dicomnode.errors import BundleError, GateError, UsageError
from tests.conftest import ROOT
from tests.helpers.bundles import change
from training.evaluation.bar import GateBar
from training.release import promotion, verdict
from training.release.verdict import GateCheck, GateVerdict

torch.set_num_threads(1)
DEMO = ROOT / "weights" / "demo-synthetic"


def consent(run: Path, current: str, *, passed: bool = True) -> Path:
    """The gate's verdict on the run's bundle beside `current` (a digest, or "")."""
    checks = (GateCheck("discrimination", passed, "AUC is lower by 0.05"),)
    now = datetime.now(UTC).isoformat()
    bar = GateBar().model_dump()
    verdict.write(run, GateVerdict(passed, checks, read(run / "bundle").sha256, current, now, bar))
    return run


def run_folder(folder: Path, version: str, current: str, *, passed: bool = True) -> Path:
    """A run with a bundle, and the verdict of its comparison with `current`."""
    shutil.copytree(DEMO, folder / "bundle")
    change(folder / "bundle", '^version = ".*"$', f'version = "{version}"')
    return consent(folder, current, passed=passed)


def now_serving(weights: Path) -> str:
    served = promotion.served(weights)
    assert served is not None
    return read(served).version


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights folder with the shipped bundle alone, as it is installed."""
    shutil.copytree(DEMO, tmp_path / "weights" / "demo-synthetic")
    return tmp_path / "weights"


@pytest.fixture
def two(tmp_path: Path, weights: Path) -> tuple[promotion.Promotion, promotion.Promotion]:
    """Version 8 was promoted, then 9."""
    first = promotion.promote(run_folder(tmp_path / "a", "8", ""), weights)
    return first, promotion.promote(run_folder(tmp_path / "b", "9", first.bundle_sha256), weights)


@pytest.mark.slow
def test_promoted_twice_and_taken_back(weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]) -> None:
    first, second = two
    assert (first.before, second.before, second.before_sha256) == ("", first.bundle, first.bundle_sha256)
    assert now_serving(weights) == "9"
    promotion.rollback(weights)
    assert now_serving(weights) == "8"
    with pytest.raises(UsageError, match="has no bundle before"):
        promotion.rollback(weights)
    assert [p.what for p in promotion.history(weights)] == ["promoted", "promoted", "rolled back"]
    assert (weights / second.bundle / "model.toml").is_file()


@pytest.mark.slow
def test_the_first_promotion_takes_the_place_of_a_bundle_that_lies_there(tmp_path: Path, weights: Path) -> None:
    """Compared with weights/demo-synthetic, which the node serves by its name: there is no `current` yet."""
    done = promotion.promote(run_folder(tmp_path / "a", "8", read(DEMO).sha256), weights)
    assert (now_serving(weights), done.before, done.before_sha256) == ("8", "demo-synthetic", read(DEMO).sha256)
    promotion.rollback(weights)
    assert promotion.served(weights) == weights / "demo-synthetic"
    with pytest.raises(UsageError, match="has no bundle before demo-synthetic"):
        promotion.rollback(weights)


@pytest.mark.slow
def test_refused_without_a_consent_to_this_step(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(GateError, match=r"the run did not pass the gate: AUC is lower by 0\.05"):
        promotion.promote(run_folder(tmp_path / "a", "8", "", passed=False), weights)
    assert GateError.exit_code == 3
    with pytest.raises(UsageError, match=r"a different bundle from the one in service \(none\)"):
        promotion.promote(run_folder(tmp_path / "b", "8", "ab" * 32), weights)
    other = run_folder(tmp_path / "c", "8", "")
    change(other / "bundle", '^version = ".*"$', 'version = "9"')
    with pytest.raises(UsageError, match="about a different bundle"):
        promotion.promote(other, weights)
    for text in ("", "{", "{}", '{"passed": "perhaps"}'):
        (other / verdict.GATE).write_text(text)
        with pytest.raises(UsageError, match=r"gate\.json is not a verdict of the gate"):
            promotion.promote(other, weights)
    (other / verdict.GATE).unlink()
    with pytest.raises(
        UsageError, match=rf"does not exist: run `training compare {other} {weights / 'current'}` first"
    ):
        promotion.promote(other, weights)
    with pytest.raises(UsageError, match=r"nosuch has no bundle: finish the run with `training run`"):
        promotion.promote(tmp_path / "nosuch", weights)
    assert promotion.served(weights) is None


@pytest.mark.slow
def test_the_bar_is_the_node_s_at_the_moment_of_promotion(tmp_path: Path, weights: Path) -> None:
    """A verdict by other thresholds, or by the run's own as of before, is no consent; the history names departures."""
    (weights / "gate.toml").write_text("margin = 0.1")
    run = run_folder(tmp_path / "a", "8", "")
    with pytest.raises(UsageError, match=r"judged by other thresholds than .*gate\.toml: run `training compare"):
        promotion.promote(run, weights)
    (weights / "gate.toml").unlink()
    found, _ = verdict.read(run, "")
    verdict.write(run, replace(found, bar={}))
    with pytest.raises(UsageError, match="judged by the run's own thresholds, as older versions did"):
        promotion.promote(run, weights)
    (weights / "gate.toml").write_text("margin = 0.1")
    verdict.write(run, replace(found, bar=GateBar(margin=0.1).model_dump()))
    promotion.promote(run, weights)
    assert list(promotion.history(weights)[-1].departures) == ["margin 0.1 (default 0.05)"]


@pytest.mark.slow
def test_what_serves_already_is_not_promoted(
    tmp_path: Path, weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]
) -> None:
    consent(tmp_path / "b", two[1].bundle_sha256)
    with pytest.raises(UsageError, match=f"is already in service, as {two[1].bundle}"):
        promotion.promote(tmp_path / "b", weights)


@pytest.mark.slow
def test_a_consent_is_good_for_one_promotion(
    tmp_path: Path, weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]
) -> None:
    promotion.rollback(weights)
    with pytest.raises(UsageError, match=r"and that promotion was rolled back: run `training compare"):
        promotion.promote(tmp_path / "b", weights)
    promotion.promote(consent(tmp_path / "b", two[0].bundle_sha256), weights)
    assert now_serving(weights) == "9"


@pytest.mark.slow
def test_the_way_back_goes_through_all_that_served(
    tmp_path: Path, weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]
) -> None:
    """8, 9, 8 again: back to 9, then to 8, and there is nothing before."""
    promotion.promote(consent(tmp_path / "a", two[1].bundle_sha256), weights)
    for version in ("9", "8"):
        promotion.rollback(weights)
        assert now_serving(weights) == version
    with pytest.raises(UsageError, match="has no bundle before"):
        promotion.rollback(weights)


def relabel(bundle: Path) -> None:
    change(bundle, '^intended_use = ".*"$', 'intended_use = "research"')


@pytest.mark.slow
def test_another_bundle_under_a_consented_name_does_not_serve(tmp_path: Path, weights: Path) -> None:
    run = run_folder(tmp_path / "a", "8", "")
    name = f"demo-synthetic-8-{read(run / 'bundle').sha256[:8]}"
    shutil.copytree(run / "bundle", weights / name)
    relabel(weights / name)
    with pytest.raises(BundleError, match=f"{name} is not the bundle that passed the gate"):
        promotion.promote(run, weights)
    assert promotion.served(weights) is None and not promotion.history(weights)


@pytest.mark.slow
def test_a_rollback_does_not_serve_what_was_edited_since(
    weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]
) -> None:
    relabel(weights / two[0].bundle)
    with pytest.raises(BundleError, match="is not the bundle that passed the gate"):
        promotion.rollback(weights)
    assert now_serving(weights) == "9" and len(promotion.history(weights)) == 2


@pytest.mark.slow
def test_a_step_cut_off_before_the_link_moved_is_no_step(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promotion.promote(run_folder(tmp_path / "a", "8", read(DEMO).sha256), weights)
    run = run_folder(tmp_path / "b", "9", first.bundle_sha256)

    def cut_off(step: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                step()
        assert now_serving(weights) == "8"

    cut_off(lambda: promotion.promote(run, weights))
    cut_off(lambda: promotion.rollback(weights))
    promotion.promote(run, weights)  # its consent was not used
    assert now_serving(weights) == "9"
    promotion.rollback(weights)
    assert now_serving(weights) == "8"
    promotion.rollback(weights)
    assert now_serving(weights) == read(DEMO).version


@pytest.mark.slow
def test_the_way_back_from_a_lost_folder(
    tmp_path: Path, weights: Path, two: tuple[promotion.Promotion, promotion.Promotion]
) -> None:
    (weights / two[1].bundle).rename(tmp_path / "lost")
    with pytest.raises(UsageError, match=f"points to {two[1].bundle}, which is missing.*training rollback"):
        promotion.promote(tmp_path / "b", weights)
    assert promotion.rollback(weights).before == two[1].bundle
    assert now_serving(weights) == "8"


@pytest.mark.slow
def test_a_bundle_on_another_disk_keeps_its_name_here(tmp_path: Path, weights: Path) -> None:
    (weights / "demo-synthetic").rename(tmp_path / "stored")
    (weights / "research-1").symlink_to(tmp_path / "stored")
    (weights / "current").symlink_to("research-1")
    done = promotion.promote(run_folder(tmp_path / "a", "8", read(DEMO).sha256), weights)
    assert done.before == "research-1"
    promotion.rollback(weights)
    assert (weights / "current").readlink() == Path("research-1")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for step in (lambda: promotion.promote(tmp_path / "run", tmp_path), lambda: promotion.rollback(tmp_path)):
            with pytest.raises(UsageError, match="is in use by another promotion or rollback"):
                step()


def test_a_current_that_is_no_link_beside_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(UsageError, match="is not a link"):
        promotion.served(tmp_path)
    (tmp_path / "current").rmdir()
    (tmp_path / "current").symlink_to("/elsewhere/bundle")
    with pytest.raises(UsageError, match="is not a link to a bundle beside it"):
        promotion.served(tmp_path)


def test_a_damaged_history_and_a_wrong_folder_are_said(tmp_path: Path) -> None:
    (tmp_path / promotion.HISTORY).write_text(json.dumps({"at": "2024"}) + "\n")
    with pytest.raises(UsageError, match=r"promotions\.jsonl, line 1 is not a promotion"):
        promotion.rollback(tmp_path)
    with pytest.raises(UsageError, match="nosuch is not a folder"):
        promotion.rollback(tmp_path / "nosuch")
