"""The shipped demonstration bundle: a run on a synthetic registry, small enough for two cores."""

from pathlib import Path

import tomli_w

from training.progress_type import ProgressCallback
from training.run.run import run
from training.run.settings import load

NAME, VERSION = "demo-synthetic", "2"
PATIENTS, SEED = 300, 20260101
#: One network of resnet18 is 22 MB, and the bundle has to stay below 30 MB.
NETWORKS = 1
#: 4 mm pixels over 256 x 320 mm, 8 slices.
_SPEC = {"spacing_mm": 4.0, "canvas": [64, 80], "slices": 8}


def run_demo(registry: Path, out: Path, progress: ProgressCallback) -> Path:
    """Make the demonstration's run from its registry, or what is missing of it. Returns the run folder."""
    settings = {
        "registry": str(registry.resolve()),
        "outcomes": str((registry / "outcomes.csv").resolve()),
        "out": str(out.resolve()),
        "seed": SEED,
        "arms": ["radiomics", "resnet18"],
        "splits": {"outer": 3, "inner": 3},
        # The synthetic registry's radiomics are coarser than a node's: a bundle with them would be refused there.
        "features": {"radiomics": False},
        "radiomics": {"families": ["quantities", "change"]},
        "deep": {"spec": _SPEC, "epochs": 14, "patience": 6, "learning_rate": 5e-4},
        "bundle": {"make": False, "name": NAME, "version": VERSION},
    }
    text = tomli_w.dumps(settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    (out.parent / "run.toml").write_text(text, encoding="utf-8")
    return run(load(out.parent / "run.toml"), text, progress)
