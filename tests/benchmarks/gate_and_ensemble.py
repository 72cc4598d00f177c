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
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tests.helpers.tabular_worlds import FIRST_DAY, World, imaged, settings_toml, world, write
from training.bundle.make import make_bundle
from training.data.registry_folder import SCANS
from training.evaluation import metrics
from training.evaluation.records import Evaluation
from training.models import stacking
from training.release.gate import compare
from training.run.run import read_data, run
from training.run.settings import load

_PATIENTS = 150
#: SD of the noise in the worse arm's numbers, with which 20,000 scans lose 0.05 of AUC at three years.
_WORSE = 0.71


def main() -> None:
    """Print what one measurement found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gate", "ensemble", "tables", "baselines"))
    parser.add_argument("--support2", type=Path, default=Path("../shared/data/survival/support2.csv"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    if wanted.what == "tables":
        tables(seeds, wanted.support2)
    else:
        {"gate": gate, "ensemble": ensemble, "baselines": baselines}[wanted.what](seeds)


def made(folder: Path, seed: int, families: str, out: str = "run", until: str = "ensemble", **tables: str) -> Path:
    """A run on the registry in a folder, up to a step."""
    settings = {
        "top": f"seed = {seed}",
        "features": "radiomics = true\nworkers = 1",
        "radiomics": f'models = ["cox"]\nfamilies = ["{families}"]\nstability = 0',
        "baselines": "fit = []",
        "evaluation": "bootstrap = 200",
    }
    toml = settings_toml(folder, **{**settings, **tables})
    return run(load(toml, folder / out), toml.read_text(), lambda *_: None, until)


def bundled(done: Path) -> Path:
    """The run with its bundle, without the evaluation and the report, which take most of the time."""
    make_bundle(done, done / "bundle", name="seeds", version="1", created_by="gate_and_ensemble")
    return done


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
            serving = bundled(made(folder, seed, "quantities")) / "bundle"
            again = bundled(made(folder, seed, "quantities", "again"))
            same += verdict("same", seed, again, serving)
            worse += not verdict("worse", seed, bundled(made(folder, seed, "radiomics", "worse")), serving)
            part = folder / "part"
            first = {f"P{number:04d}" for number in range(_PATIENTS * 2 // 3)}
            rows = whole.scans["patient"].isin(first)
            kept = whole.outcomes["patient"].isin(first)
            write(
                World(whole.scans[rows], whole.features[rows], whole.outcomes[kept], whole.severity[rows.to_numpy()]),
                part / "registry",
            )
            shutil.copytree(folder / "registry" / "volumes", part / "registry" / "volumes")
            grown += verdict("grown", seed, again, bundled(made(part, seed, "quantities")) / "bundle")
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
                    done = made(folder, seed, families, families)
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


_DISEASE = ("num.co", "scoma", "avtisst", "hday", "diabetes", "dementia")
_VITAL = ("meanbp", "hrt", "resp", "temp", "wblc", "crea", "sod")


def support(path: Path, patients: int, seed: int) -> World:
    """Patients of SUPPORT2, one row each: severity of the disease as `quantities`, vital signs as `radiomics`."""
    table = pd.read_csv(path, skipinitialspace=True)
    table = table[table["d.time"] > 1].sample(patients, random_state=seed).reset_index(drop=True)
    names = [f"S{number:05d}" for number in range(patients)]
    ages, sexes = table["age"].clip(upper=90).round(1).astype(str), table["sex"].map({"male": "M", "female": "F"})
    scanner = ("GE", "one", "STANDARD", "medium", "1.25", "1.25", "lungmask", "0.1", "a1", "")
    rows = [
        (name, f"{name}-1", FIRST_DAY.isoformat(), age, sex, *scanner)
        for name, age, sex in zip(names, ages, sexes, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=list(SCANS))
    features = pd.DataFrame({"scan": frame["scan"]})
    for family, of in (("quantities.lungs.", _DISEASE), ("radiomics.lungs.", _VITAL)):
        for name in of:
            features[family + name.replace(".", "_")] = table[name].astype("float64")
    end = [(FIRST_DAY + timedelta(days=int(days))).isoformat() for days in table["d.time"]]
    dead = table["death"].astype(bool)
    outcomes = pd.DataFrame(
        {
            "patient": names,
            "death_date": np.where(dead, end, ""),
            "last_contact_date": end,
            "transplant_date": "",
        }
    )
    return World(frame, features, outcomes, np.zeros(patients))


def tables(seeds: Sequence[int], path: Path) -> None:
    """The pooled AUC of the ensemble less that of its best arm, on small draws of a real survival table."""
    for patients in (60, 150, 600):
        gaps = []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                write(support(path, patients, seed), folder / "registry")
                arms = {}
                for family in ("quantities", "radiomics", "covariates"):
                    done = made(folder, seed, family, family)
                    found = pd.read_parquet(done / "predictions.parquet")
                    arms[family] = found[found["arm"] == "radiomics"].reset_index(drop=True)
                outcomes = read_data(done, folder / "registry").outcomes
            joined = stacking.stack(arms, outcomes).predictions["risk_3"].to_numpy()
            at = metrics.at_horizon(outcomes, 3)
            best = max(float(metrics.auc(at, arm["risk_3"].to_numpy())) for arm in arms.values())
            gaps.append(float(metrics.auc(at, joined)) - best)
        good = sum(gap >= -0.005 for gap in gaps)
        print(f"support2, {patients} patients: {good} of {len(seeds)} within 0.005", end=", ")
        print(f"worst {min(gaps):+.3f}, mean {np.mean(gaps):+.4f}", flush=True)


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
                done = made(folder, seed, "quantities", until="evaluation", baselines='fit = ["volume"]')
                found = Evaluation.from_json((done / "evaluation.json").read_text())
                warned += any("baseline volume alone" in warning for warning in found.warnings)
        print(f"{name}: warned in {warned} of {len(seeds)}")


if __name__ == "__main__":
    main()
