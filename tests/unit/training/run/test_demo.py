"""The demonstration's run: its settings are ones that a run takes, and its bundle stays small."""

from pathlib import Path

import pytest

from training.models.deep import settings as deep_settings
from training.progress_type import ProgressCallback
from training.run import demo
from training.run.settings import RunSettings


def test_the_settings_are_valid_and_kept_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[RunSettings] = []

    def take(settings: RunSettings, toml: str, progress: ProgressCallback) -> Path:
        assert toml == (tmp_path / "run.toml").read_text()
        taken.append(settings)
        return settings.out

    monkeypatch.setattr(demo, "run", take)
    assert demo.run_demo(tmp_path / "registry", tmp_path / "run", lambda *_: None) == tmp_path / "run"
    settings = taken[0]
    assert settings.registry == tmp_path / "registry" and settings.arms == ("radiomics", "resnet18")
    assert deep_settings.read(settings.deep).spec.canvas == (64, 80)
    # A node measures radiomics at 1 mm, the synthetic registry does not.
    assert not settings.features.radiomics and "radiomics" not in settings.radiomics.families
