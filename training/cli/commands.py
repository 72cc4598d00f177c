"""The `training` command. Every command writes to a new folder; an error is one line and an exit status."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicomnode import logs
from dicomnode.errors import DicomnodeError, UsageError
from dicomnode.files import private_umask
from training.cli import export, gate, imports, validation
from training.cli.bars import bars

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help: rich's shows every flag as <bool>
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train dicomnode's risk model offline: registry -> run -> bundle. Research use only.",
    epilog="Example: training synthetic --patients 600 --out registry --radiomics && training run training-run.toml",
)

Out = Annotated[Path, typer.Option(help="Output folder; must be new or empty.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]

DEMO_SEED = 20260101
#: What the extra `training` brings, by the names under which it is imported.
_EXTRA = {"lifelines", "pandas", "pyarrow", "sklearn"}


@app.command(epilog="Example: training report run")
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    show: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the report in a browser (default: only on a desktop)."),
    ] = None,
) -> None:
    """Write report.html, report.md and report.json to a run folder, and open the page."""
    from training.report.report import write

    page = write(run)
    typer.echo(page)
    if _on_a_desktop() if show is None else show:
        typer.launch(str(page))


def _on_a_desktop() -> bool:
    """Whether a person looks at the output, where a browser can have a window."""
    windows = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return sys.stdout.isatty() and windows


@app.command(epilog="Example: training synthetic --patients 600 --out registry --radiomics")
def synthetic(
    out: Out,
    patients: Annotated[int, typer.Option(help="Number of patients, with three to four scans each.")] = 600,
    seed: Seed = DEMO_SEED,
    radiomics: Annotated[bool, typer.Option("--radiomics", help="Also compute radiomic features.")] = False,
    volumes: Annotated[bool, typer.Option(help="Keep the lungs' voxels; the networks need them.")] = True,
) -> None:
    """Generate a synthetic registry with known ground truth: phantom scans, features, outcomes and censoring.

    An interrupted run resumes where it stopped. 600 patients with radiomics take about ten minutes on two idle cores.
    """
    from training.synthetic.registry import Request, make_registry

    request = Request(patients, seed, radiomics, volumes)
    with bars() as tell:
        scans = make_registry(out, request, progress=lambda done, total: tell("Making scans", done, total))
    typer.echo(f"{out}: {patients} patients, {scans} scans")


@app.command(epilog="Example: training bundle --run run --out weights/ssc-ild-risk-1 --name ssc-ild-risk")
def bundle(
    run: Annotated[Path, typer.Option(help="Run folder, as written by `training run`.")],
    out: Annotated[Path, typer.Option(help="Bundle folder; an existing bundle is replaced.")],
    name: Annotated[str, typer.Option(help="Model name.")],
    version: Annotated[str, typer.Option(help="Model version.")] = "1",
    networks: Annotated[
        int | None, typer.Option(min=1, help="Number of fold models to keep per network arm (default: all).")
    ] = None,
) -> None:
    """Package a run as a bundle (models, model.toml, golden case, model card), like the run's own, but in --out."""
    from training.bundle.make import make_bundle

    command = f"training bundle --run {run} --out {out} --name {name} --version {version}"
    command += "" if networks is None else f" --networks {networks}"
    made = make_bundle(run, out, name=name, version=version, created_by=command, networks=networks)
    typer.echo(f"{out}: {made.name} {made.version}, sha256 {made.sha256}")


@app.command("demo-bundle", epilog="Example: training demo-bundle --work demo-training --out weights/demo-synthetic")
def demo_bundle(
    out: Annotated[Path, typer.Option(help="Bundle folder; an existing bundle is replaced.")],
    work: Annotated[Path, typer.Option(help="Working folder for registry and run; finished parts are reused.")],
) -> None:
    """Rebuild the shipped demonstration bundle: synthetic, run and bundle in turn (about an hour on two cores).

    On a busy machine, set OMP_NUM_THREADS=1; otherwise torch's threads wait for one another.
    """
    from training.bundle.make import make_bundle
    from training.run import demo

    registry = work / "registry"
    synthetic(registry, demo.PATIENTS, demo.SEED)
    with bars() as tell:
        run_folder = demo.run_demo(registry, work / "run", tell)
    made = make_bundle(
        run_folder,
        out,
        name=demo.NAME,
        version=demo.VERSION,
        created_by=f"training demo-bundle --work demo-training --out weights/{demo.NAME}",
        networks=demo.NETWORKS,
    )
    typer.echo(f"{out}: {made.name} {made.version}, sha256 {made.sha256}")


@app.command(
    epilog="Example: training cohort --registry cohort --outcomes outcomes.csv --out run/cohort.parquet\n\n"
    "Example: training cohort --dicom scans --outcomes clinic.csv --out look/cohort.parquet"
)
def cohort(
    outcomes: Annotated[Path, typer.Option(help="CSV: patient, death_date, last_contact_date, transplant_date.")],
    out: Annotated[Path, typer.Option(help="Output file (Parquet); flow.json is written beside it.")],
    registry: Annotated[
        Path | None,
        typer.Option(help="Registry folder; with --dicom, the folder to create (default: `registry` beside --out)."),
    ] = None,
    covariates: Annotated[Path | None, typer.Option(help="CSV: patient, date, name, value, unit.")] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            help="Folder of DICOM files to analyse first; `patient` in the CSV files is then the Patient ID, with a "
            "column `issuer` beside it where the images name an Issuer of Patient ID."
        ),
    ] = None,
    transplant: Annotated[
        str, typer.Option(help="How to treat a lung transplant: event, censor or ignore.")
    ] = "censor",
    disease: Annotated[str, typer.Option(help="With --dicom: disease of the patients, for report and bundle.")] = "",
    source: Annotated[str, typer.Option(help="With --dicom: where the scans come from, and their licence.")] = "",
    site: Annotated[list[str] | None, typer.Option(help="With --dicom: the hospital; may be repeated.")] = None,
) -> None:
    """Join scans with outcomes: which scans are used, their follow-up, and why others are excluded."""
    from training.data import cohort as cohorts
    from training.data.from_dicom import make_registry
    from training.data.registry_folder import read
    from training.run.run import make_cohort
    from training.run.settings import from_dict

    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file in it, such as {out / 'cohort.parquet'}")
    if registry is None:
        if dicom is None:
            raise UsageError("give --registry FOLDER, or --dicom FOLDER with scans that the node has not processed")
        registry = out.with_name("registry")
    if dicom is not None:
        with bars() as tell:
            of = {"disease": disease, "source": source, "sites": site or []}
            made = make_registry(dicom, registry, outcomes, covariates, tell, of)
        typer.echo(
            f"registry: {registry}; its re-identification key, to be stored separately: {registry}.key", err=True
        )
        outcomes, covariates = made.outcomes, made.covariates
        for reason in made.refused:
            typer.echo(f"excluded from the registry: {reason}", err=True)
    stated = {"registry": registry, "outcomes": outcomes, "out": out.parent, "cohort": {"transplant": transplant}}
    settings = from_dict({**stated, **({} if covariates is None else {"covariates": covariates})}, "training cohort")
    found, matched = make_cohort(settings, read(registry))
    cohorts.save(found, out)
    for line in matched.lines:
        typer.echo(line)
    for warning in matched.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for line in cohorts.flow_lines(found.flow):
        typer.echo(line)


@app.command(epilog="Example: training run run.toml")
def run(
    toml: Annotated[
        Path, typer.Argument(metavar="RUN.TOML", help="Settings file, explained in docs/research/training-run.toml.")
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder (default: `out` in the settings).")] = None,
    registry: Annotated[Path | None, typer.Option(help="Registry folder (default: as in the settings).")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Outcomes CSV (default: as in the settings).")] = None,
    check: Annotated[
        str,
        typer.Option(help="Only check the settings against what a registry will hold, given as JSON; for the node."),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            help="Last step to run: cohort, splits, features, arms, ensemble, baselines, evaluation, explanation, "
            "report, bundle."
        ),
    ] = "bundle",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate time, memory and disk, and say how; nothing is written.")
    ] = False,
) -> None:
    """Fit, evaluate and package models, from the cohort to the bundle, by the steps that --until names.

    It may be interrupted at any time; started again, it resumes where it stopped.
    """
    from training.run.settings import load

    settings = load(toml, out, registry=registry, outcomes=outcomes)
    if check:
        from training.run.expected import check as check_all

        typer.echo(check_all(settings, check))
        return
    if dry_run:
        from training.run.estimate import estimate

        for line in estimate(settings).lines:
            typer.echo(line)
        return
    from training.run.closing import closing
    from training.run.run import run as run_all

    with bars() as tell:
        folder = run_all(settings, toml.read_text(encoding="utf-8"), tell, until)
    said = closing(folder)
    for line in said.lines:
        typer.echo(line)
    for warning in said.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{folder}: finished up to {until}")


@app.command(epilog="Example: training pretrained resnet18 densenet121 swin_t --to imagenet")
def pretrained(
    backbones: Annotated[list[str], typer.Argument(metavar="BACKBONES", help="resnet18, densenet121, swin_t.")],
    to: Annotated[Path, typer.Option(help="Download folder; an interrupted download resumes.")],
    mirror: Annotated[
        str, typer.Option(help="Base URL of a mirror with the same files (default: torchvision's).")
    ] = "",
) -> None:
    """Download torchvision's ImageNet weights, verify their digests, and print the settings lines that use them.

    Without internet access, the error message names the file's URL: copy the file here and name it in the settings.
    """
    from functools import partial

    import tomli_w
    from rich.progress import DownloadColumn

    from dicomnode.downloads import fetch
    from training.models.deep.pretrained import published

    wanted = [published(backbone) for backbone in backbones]
    with bars(DownloadColumn()) as tell:
        got = {known.name: fetch(known, to, mirror, partial(tell, known.name)) for known in wanted}
    for name, file in got.items():
        found = {"path": str(file.path.resolve()), "sha256": file.sha256}
        typer.echo(tomli_w.dumps({"deep": {"pretrained": {name: found}}}))


@app.command(epilog="Example: training keygen keys/research --passphrase")
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Private key; the public one is written as FILE.pub.")],
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase that encrypts it.")] = False,
) -> None:
    """Make a key pair for signing bundles. Keep FILE secret; give FILE.pub to the sites that serve your bundles."""
    from training.bundle import signing

    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else ""
    typer.echo(f"{file}{signing.PUBLIC_SUFFIX}: key {signing.make_key(file, secret)}")


@app.command(epilog="Example: training sign weights/ssc-ild-risk-1 --key keys/research")
def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.", exists=True, file_okay=False)],
    key: Annotated[Path, typer.Option(help="Private key, as written by `training keygen`.")],
) -> None:
    """Sign a bundle: write model.sig into its folder. The bundle must load; an older signature is replaced."""
    from training.bundle import signing

    secret = typer.prompt("Passphrase", hide_input=True) if signing.needs_passphrase(key) else ""
    typer.echo(f"{bundle}: signed with key {signing.sign(bundle, key, secret)}")


app.add_typer(gate.app)
app.add_typer(export.app)
app.add_typer(imports.app)
app.add_typer(validation.app)


def main() -> None:
    """Entry point: the one catch of dicomnode's errors."""
    if "_TRAINING_COMPLETE" in os.environ:  # a shell asks for completion (docs/admin/commands.md)
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    private_umask()  # cohorts and registries are patients' data
    logs.configure("warning", "training")
    try:
        app(prog_name="training")
    except DicomnodeError as error:
        fail(error)
    except OSError as error:
        if error.filename is None:
            raise
        # A folder that cannot be written, a full disk: for the person to mend, no fault of the program.
        path = error.filename2 or error.filename  # of a file that could not take its place, the place
        fail(UsageError(f"{path}: {error.strerror}; check the path, its owner and the disk"))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        cure = "it comes with the extra training: deploy/install.sh --upgrade --training, or `make install` in a clone"
        fail(UsageError(f"{missing} is not installed, since a node alone does not need it; {cure}"))


def fail(error: DicomnodeError) -> NoReturn:
    """Print the message and leave with the error's exit status."""
    typer.echo(f"training: {error}", err=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
