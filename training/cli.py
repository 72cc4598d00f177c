"""The `training` command. Every command writes to a new folder; errors are one line and an exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.errors import DicomnodeError
from training import cli_gate
from training.card import auc_lines
from training.progress import bars

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train dicomnode's risk model offline: registry -> run -> bundle. Research use only.",
)

Out = Annotated[Path, typer.Option(help="New or empty folder to write to.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

DEMO_NAME, DEMO_VERSION = "demo-synthetic", "1"
DEMO_PATIENTS, DEMO_EPOCHS, DEMO_SEED = 300, 12, 20260101


@app.command(epilog="Example: training synthetic --patients 600 --out registry --radiomics")
def synthetic(
    out: Out,
    patients: Annotated[int, typer.Option(help="How many patients; three to four scans each.")] = 600,
    seed: Seed = DEMO_SEED,
    radiomics: Annotated[bool, typer.Option("--radiomics", help="Compute the radiomic features, too.")] = False,
    volumes: Annotated[bool, typer.Option(help="Keep the scans' volumes, for networks.")] = True,
) -> None:
    """Make a synthetic registry with a known truth: phantom scans, features, outcomes, censoring.

    Broken off and started again, it goes on where it was. 600 patients with radiomics take about eight minutes on two
    idle cores.
    """
    from training.synthetic import Request, make_registry

    request = Request(patients, seed, radiomics, volumes)
    with bars() as tell:
        scans = make_registry(out, request, progress=lambda done, total: tell("Making scans", done, total))
    typer.echo(f"{out}: {patients} patients, {scans} scans")


@app.command(epilog="Example: training fit --registry registry --out run --backbone resnet18 --epochs 12")
def fit(
    registry: Annotated[Path, typer.Option(help="Folder with scans.csv, outcomes.csv and the scans.")],
    out: Out,
    backbone: Annotated[str, typer.Option(help="resnet18, densenet121 or swin_t.")] = "resnet18",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training scans.")] = DEMO_EPOCHS,
    seed: Seed = 1,
) -> None:
    """Train on a registry, split by patient, and evaluate on held-out patients.

    On a machine with other work, set OMP_NUM_THREADS=1: torch's threads otherwise wait for one another.
    """
    from dicomnode.analysis.backbones import BACKBONES
    from dicomnode.errors import UsageError
    from training.fit import DEMO_SPEC, Settings
    from training.fit import fit as run_fit

    if backbone not in BACKBONES:
        raise UsageError(f"--backbone is {backbone!r}: use one of {', '.join(BACKBONES)}")
    settings = Settings(spec=DEMO_SPEC, backbone=backbone, epochs=epochs, seed=seed)
    with bars() as tell:
        run = run_fit(registry, out, settings, tell)
    for line in auc_lines(run):
        typer.echo(line)


@app.command(epilog="Example: training bundle --run run --out weights/demo-synthetic")
def bundle(
    run: Annotated[Path, typer.Option(help="Folder that `training fit` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; an older bundle there is replaced.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = DEMO_NAME,
    version: Annotated[str, typer.Option(help="The model's version.")] = DEMO_VERSION,
) -> None:
    """Make a bundle of a run: weights, model.toml, golden case, model card."""
    from training.bundle import make_bundle

    command = f"training bundle --run {run} --out {out} --name {name} --version {version}"
    made = make_bundle(run, out, name=name, version=version, created_by=command)
    typer.echo(f"{out}: {made.name} {made.version}, sha256 {made.sha256}")


@app.command("demo-bundle", epilog="Example: training demo-bundle --work demo-training --out weights/demo-synthetic")
def demo_bundle(
    out: Annotated[Path, typer.Option(help="Folder of the bundle; an older bundle there is replaced.")],
    work: Annotated[Path, typer.Option(help="Folder for registry and run; what is finished there is used again.")],
) -> None:
    """Make the shipped demonstration bundle: synthetic, fit and bundle, in turn (about 10 minutes on 2 cores)."""
    from training.bundle import make_bundle

    registry, run = work / "registry", work / "run"
    synthetic(registry, DEMO_PATIENTS, DEMO_SEED)
    if not (run / "run.json").is_file():
        fit(registry, run)
    command = (
        f"training synthetic --out registry --patients {DEMO_PATIENTS} --seed {DEMO_SEED} && "
        f"training fit --registry registry --out run --epochs {DEMO_EPOCHS} && "
        f"training bundle --run run --out weights/{DEMO_NAME}  # or, all in one: training demo-bundle"
    )
    made = make_bundle(run, out, name=DEMO_NAME, version=DEMO_VERSION, created_by=command)
    typer.echo(f"{out}: {made.name} {made.version}, sha256 {made.sha256}")


@app.command(
    epilog="Example: training cohort --registry cohort --outcomes outcomes.csv --out run/cohort.parquet\n\n"
    "Example: training cohort --dicom scans --registry new --outcomes clinic.csv --out run/cohort.parquet"
)
def cohort(
    registry: Annotated[Path, typer.Option(help="Registry folder; with --dicom, where a new one is made.")],
    outcomes: Annotated[Path, typer.Option(help="CSV: patient, death_date, last_contact_date, transplant_date.")],
    out: Annotated[Path, typer.Option(help="File to write; flow.json is written beside it.")],
    covariates: Annotated[Path | None, typer.Option(help="CSV: patient, date, name, value, unit.")] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(help="Folder of DICOM files to analyse first; `patient` in the CSV files is then the Patient ID."),
    ] = None,
    transplant: Annotated[str, typer.Option(help="event, censor or ignore.")] = "censor",
) -> None:
    """Join scans with outcomes: who is learnt from, how long each was followed, and why others are left out."""
    from training import cohort as cohorts
    from training.dicom_registry import make_registry
    from training.registry import read
    from training.run import make_cohort
    from training.settings import from_dict

    if dicom is not None:
        with bars() as tell:
            made = make_registry(dicom, registry, outcomes, covariates, tell)
        outcomes, covariates = made.outcomes, made.covariates
        for reason in made.refused:
            typer.echo(f"not in the registry: {reason}", err=True)
    stated = {"registry": registry, "outcomes": outcomes, "out": out.parent, "cohort": {"transplant": transplant}}
    settings = from_dict({**stated, **({} if covariates is None else {"covariates": covariates})}, "training cohort")
    found = make_cohort(settings, read(registry))
    cohorts.save(found, out)
    for line in cohorts.flow_lines(found.flow):
        typer.echo(line)


@app.command(epilog="Example: training run run.toml")
def run(
    toml: Annotated[Path, typer.Argument(metavar="RUN.TOML", help="Settings; docs/training-run.toml explains them.")],
    out: Annotated[Path | None, typer.Option(help="Run folder, in place of the file's.")] = None,
    until: Annotated[
        str, typer.Option(help="Last step: cohort, splits, features, arms, ensemble, evaluation, report or bundle.")
    ] = "bundle",
) -> None:
    """Fit, judge and bundle models: splits, features, arms, ensemble, evaluation, report, bundle.

    Stopped at any moment and started again, it goes on where it was.
    """
    from training.run import run as run_all
    from training.settings import load

    settings = load(toml, out)
    with bars() as tell:
        folder = run_all(settings, toml.read_text(encoding="utf-8"), tell, until)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for warning in record["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{folder}: done until {until}")


app.add_typer(cli_gate.app)


def main() -> None:
    """Entry point: the one catch of dicomnode's errors."""
    try:
        app()
    except DicomnodeError as error:
        typer.echo(f"training: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
