"""Whether the gate is fair, the ensemble harmless, and a useless model told from a baseline, over many seeds.

Registries of numbers alone with a known hazard (`tests.helpers.tabular_worlds`), penalised Cox models, five outer and
three inner folds. The figures are kept in docs/evidence/gate-and-ensemble.md.

    python -m tests.benchmarks.gate_and_ensemble gate --seeds 20
    python -m tests.benchmarks.gate_and_ensemble ensemble --seeds 20
    python -m tests.benchmarks.gate_and_ensemble baselines --seeds 20
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tests.helpers.tabular_worlds import World, imaged, settings_toml, world, write
from training.evaluation import metrics
from training.evaluation.records import Evaluation
from training.models import stacking
from training.release.gate import compare
from training.report import report
from training.run.run import read_data, run
from training.run.settings import load

_PATIENTS = 150
#: SD of the noise in the worse arm's numbers, with which 20,000 scans lose 0.05 of AUC at three years.
_WORSE = 0.71


def main() -> None:
    """Print what one measurement found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gate", "ensemble", "baselines"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    report.write = lambda folder: folder  # nobody reads these reports, and each takes seconds
    {"gate": gate, "ensemble": ensemble, "baselines": baselines}[wanted.what](
        range(wanted.first, wanted.first + wanted.seeds)
    )


def made(folder: Path, seed: int, families: str, out: str = "run", **tables: str) -> Path:
    """A run on the registry in a folder."""
    settings = {
        "top": f"seed = {seed}",
        "features": "radiomics = true\nworkers = 1",
        "radiomics": f'models = ["cox"]\nfamilies = ["{families}"]\nstability = 0',
        "baselines": "fit = []",
        "evaluation": "bootstrap = 200",
    }
    toml = settings_toml(folder, **{**settings, **tables})
    return run(load(toml, folder / out), toml.read_text(), lambda *_: None)


def graded(made_: World, seed: int) -> World:
    """The world with one set of numbers close to the severity, `quantities`, and a noisier one, `radiomics`."""
    rng = np.random.default_rng(seed)
    table = made_.features[["scan", "quantities.lungs.haa_percent", "quantities.lungs.mean_hu"]].copy()
    noisy = made_.severity + rng.normal(0, _WORSE, len(made_.severity))
    table["radiomics.lungs.original_firstorder_Worse"] = noisy
    return replace(made_, features=table)


def loss() -> float:
    """How much AUC at three years the noisier number loses in a large population."""
    rng = np.random.default_rng(1)
    severity = rng.normal(size=20_000)
    died = rng.exponential(1 / (0.08 * np.exp(1.2 * severity))) < 3
    seen = [severity + rng.normal(0, 0.4, len(severity)) for _ in range(2)]
    found = [_auc(died, (seen[0] + seen[1]) / 2), _auc(died, severity + rng.normal(0, _WORSE, len(severity)))]
    return found[0] - found[1]


def _auc(died: np.ndarray, score: np.ndarray) -> float:
    ranks = pd.Series(score).rank().to_numpy()
    dead = int(died.sum())
    return float((ranks[died].sum() - dead * (dead + 1) / 2) / (dead * (len(died) - dead)))


def gate(seeds: Sequence[int]) -> None:
    """The same training against itself, a worse model, and the same training on a registry that has grown."""
    print(f"loss of AUC by the noisier number in 20,000 patients: {loss():.3f}")
    same, worse, grown = 0, 0, 0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            whole = _with_volumes(graded(world(_PATIENTS, 500 + seed), seed), folder)
            serving = made(folder, seed, "quantities") / "bundle"
            again = made(folder, seed, "quantities", "again")
            same += verdict("same", seed, again, serving)
            worse += not verdict("worse", seed, made(folder, seed, "radiomics", "worse"), serving)
            part = folder / "part"
            first = {f"P{number:04d}" for number in range(_PATIENTS * 2 // 3)}
            rows = whole.scans["patient"].isin(first)
            kept = whole.outcomes["patient"].isin(first)
            write(
                World(whole.scans[rows], whole.features[rows], whole.outcomes[kept], whole.severity[rows.to_numpy()]),
                part / "registry",
            )
            shutil.copytree(folder / "registry" / "volumes", part / "registry" / "volumes")
            grown += verdict("grown", seed, again, made(part, seed, "quantities") / "bundle")
    print(f"of {len(seeds)}: same passes {same}, worse is refused {worse}, grown passes {grown}")


def _with_volumes(numbers: World, folder: Path) -> World:
    """The world's scans with their volumes; the numbers stay, as no image shows them."""
    pictured = imaged(numbers, folder / "registry")
    done = replace(numbers, scans=pictured.scans)
    write(done, folder / "registry")
    return done


def verdict(name: str, seed: int, candidate: Path, serving: Path) -> bool:
    """Whether the gate lets the candidate pass, but for the condition that its table was measured on the volumes."""
    found = compare(candidate, serving, lambda *_: None)
    checks = [check for check in found.checks if check.name != "measurements"]
    failed = [check.name for check in checks if not check.passed]
    text = next(check.text for check in checks if check.name == "discrimination").split(". The")[0]
    print(f"{name} {seed}: {'refused: ' + ', '.join(failed) if failed else 'passed'}; {text}", flush=True)
    return not failed


def ensemble(seeds: Sequence[int]) -> None:
    """The pooled AUC of the ensemble less that of its best arm, and the slope beside the truth's."""
    for patients in (60, 150, 600):
        gaps, slopes = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                drawn = world(patients, 1000 * patients + seed)
                write(drawn, folder / "registry")
                arms = {}
                for families in ("quantities", "covariates"):
                    done = made(folder, seed, families, families, bundle="make = false")
                    table = pd.read_parquet(done / "predictions.parquet")
                    arms[families] = table[table["arm"] == "radiomics"].reset_index(drop=True)
                data = read_data(done, folder / "registry")
            joined = stacking.stack(arms, data.outcomes).predictions["risk_3"].to_numpy()
            at = metrics.at_horizon(data.outcomes, 3)
            best = max(float(metrics.auc(at, arm["risk_3"].to_numpy())) for arm in arms.values())
            gaps.append(float(metrics.auc(at, joined)) - best)
            severity = dict(zip(drawn.scans["scan"], drawn.severity, strict=True))
            true = 1 - np.exp(-0.24 * np.exp(1.2 * np.array([severity[s] for s in data.cohort["scan"]])))
            slopes.append([float(metrics.calibration_slope(at, risk)) for risk in (true, joined)])
            print(
                f"{patients} {seed}: {gaps[-1]:+.4f}, slope {slopes[-1][1]:.2f}, truth's {slopes[-1][0]:.2f}",
                flush=True,
            )
        within = [0.8 <= mine <= 1.25 for true, mine in slopes if 0.8 <= true <= 1.25]
        good = sum(gap >= -0.005 for gap in gaps)
        print(f"{patients} patients: {good} of {len(seeds)} within 0.005, worst {min(gaps):+.3f}", end=", ")
        print(f"mean {np.mean(gaps):+.4f}", end="; ")
        print(f"slope within 0.8 to 1.25 in {sum(within)} of {len(within)} where the truth's is, ", end="")
        print(f"median {np.median([mine for _, mine in slopes]):.2f}")


def baselines(seeds: Sequence[int]) -> None:
    """How often the report warns that nothing beats the volume, where the risk is the volume's alone, and where not."""
    for name in ("volume alone", "more than the volume"):
        warned = 0
        for seed in seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                drawn = world(_PATIENTS, 900 + seed)
                table = drawn.features.copy()
                rng = np.random.default_rng(seed)
                own = drawn.severity + rng.normal(0, 0.4 if name == "volume alone" else 3.0, len(drawn.severity))
                table["quantities.lungs.volume_ml"] = 4000 - 500 * own
                if name == "volume alone":
                    noise = [c for c in table if c.startswith("quantities.") and "volume" not in c]
                    table[noise] = rng.normal(size=(len(table), len(noise)))
                write(replace(drawn, features=table), folder / "registry")
                done = made(folder, seed, "quantities", baselines='fit = ["volume"]', bundle="make = false")
                found = Evaluation.from_json((done / "evaluation.json").read_text())
                warned += any("baseline volume alone" in warning for warning in found.warnings)
        print(f"{name}: warned in {warned} of {len(seeds)}")


if __name__ == "__main__":
    main()
