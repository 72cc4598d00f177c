"""`dicomnode registry`."""

import json
import os
import signal
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.words.numerals import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicomnode.config import Config
    from dicomnode.store.catalog.catalog import Catalog

app = typer.Typer(help="Manage the pseudonymised training registry.", no_args_is_help=True)


@app.command("export")
def registry_export(
    out: Annotated[Path, typer.Option(help="New or empty folder.")], config_file: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Export the registry for `training cohort`. The key stays on the node.

    Example: dicomnode registry export --out cohort/
    """
    from rich.progress import Progress

    from dicomnode.operations.audited import note_export
    from dicomnode.registry.export import export

    config = load(config_file)
    with _opened(config) as catalog, Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("scans", total=None)
        note_export(config, str(out.absolute()), {"what": "pseudonymised registry"})
        done = export(
            catalog,
            out,
            lambda now, total: bar.update(task, completed=now, total=total),
            disease=config.registry.disease,
            site=config.registry.site,
        )
    typer.echo(
        f"{out}: {plural(done.scans, 'scan')} of {plural(done.patients, 'patient')}, "
        f"{plural(done.volumes, 'volume')}, {plural(done.outcomes, 'outcome')}; "
        f"{plural(done.doubtful, 'scan')} with doubtful lung segmentation excluded"
    )


@app.command("import-outcomes")
def registry_import_outcomes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file.")], config_file: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Import outcomes from a CSV file.

    Patients are named by pseudonym (column patient) or by Patient ID (columns patient_id, issuer). The other columns:
    death_date, last_contact_date, transplant_date. Dates given by Patient ID are shifted on import.

    Example: dicomnode registry import-outcomes outcomes.csv
    """
    from dicomnode.operations.audited import note_command
    from dicomnode.registry.key import load_pseudonyms
    from dicomnode.registry.outcomes import import_outcomes

    config = load(config_file)
    with _opened(config) as catalog:
        note_command(config, "registry import-outcomes", {"file": str(file.absolute())})
        done = import_outcomes(catalog, file, load_pseudonyms(config.registry.folder), time.time())
    typer.echo(f"{plural(done.noted, 'outcome')} imported, {done.with_scan} with a scan in the registry")


@app.command("forget")
def registry_forget(
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="Patient ID, or a pseudonym with --pseudonym.")],
    issuer: Annotated[str, typer.Option(help="Issuer of Patient ID, if the images name one.")] = "",
    pseudonym: Annotated[bool, typer.Option("--pseudonym", help="PATIENT is a pseudonym.")] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Remove a patient, and exclude future scans. Earlier exports are not changed.

    Exit status: 0 removed, 3 the registry held nothing of this patient.

    Example: dicomnode registry forget 12345 --issuer HOSPITAL
    """
    from dicomnode.operations.audited import note_command
    from dicomnode.registry.forget import forget

    config = load(config_file)
    with _opened(config) as catalog:
        note_command(config, "registry forget", {"patient": patient, "issuer": issuer})
        done = forget(config.registry.folder, catalog, patient, issuer, is_pseudonym=pseudonym, now=time.time())
    if done.nothing:
        hint = "correct the pseudonym" if pseudonym else "correct the Patient ID, or name its issuer with --issuer"
        typer.echo(
            "the registry holds nothing of this patient and will record nothing under this name. If the patient was "
            f"recorded under another name: {hint}",
            err=True,
        )
        raise SystemExit(3)
    typer.echo(
        f"patient removed: {plural(done.scans, 'scan')}, {plural(done.outcomes, 'outcome')} "
        f"and {plural(done.volumes, 'volume')}; "
        "earlier bundles and exports are not changed"
    )


@app.command("shadow")
def registry_shadow(config_file: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Compare shadow bundles with the served one on the same scans.

    Example: dicomnode registry shadow --json
    """
    from dataclasses import asdict

    from dicomnode.registry.shadow import compare

    with _opened(load(config_file)) as catalog:
        rows = compare(catalog.registry_risks())
    if as_json:
        typer.echo(json.dumps([asdict(r) for r in rows], indent=2))
        return
    table(
        ["candidate", "served", "years", "scans", "mean risk", "served mean", "mean difference", "largest"],
        [
            [
                r.candidate,
                r.served,
                str(r.years),
                str(r.scans),
                f"{r.mean_candidate:.3f}",
                f"{r.mean_served:.3f}",
                f"{r.mean_difference:+.3f}",
                f"{r.largest_difference:.3f}",
            ]
            for r in rows
        ],
    )


@app.command("monitor")
def registry_monitor(
    month: Annotated[str, typer.Option(help="Year and month (YYYY-MM); the present one by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of page and JSON; registry.folder/monitor.")] = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Look for drift of what the model is fed and says, and compare its risks with outcomes.

    Writes a page and a JSON file of the month. Needs registry.record; the node does this by itself (registry.monitor).

    Example: dicomnode registry monitor --month 2026-11 --out monitoring/
    """
    from dicomnode import logs
    from dicomnode.registry.monitoring_files import as_json as text_of
    from dicomnode.registry.monitoring_files import monitor

    config = load(config_file)
    os.nice(19)  # patients' studies go first
    with _opened(config) as catalog:
        done = monitor(config, catalog, time.time(), month, out)
    found = done.found
    if as_json:
        typer.echo(text_of(found), nl=False)
        return
    outside = "" if found.month_outside is None else f", {found.month_outside} outside the model's population"
    typer.echo(f"{found.month}: {plural(found.month_scans, 'scan')}{outside}{f' ({found.note})' if found.note else ''}")
    for row in found.raised:
        scanner = logs.escaped(row.scanner) or "all scanners"
        typer.echo(f"changed: {row.title}, {scanner}, since {row.since}")
    for one in found.outcomes:
        ratio = "too few" if one.ratio is None else f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})"
        discrimination = "" if one.auc is None else f", AUC {one.auc:.3f}"
        typer.echo(
            f"within {plural(one.years, 'year')}: {plural(one.deaths, 'death')} of {plural(one.patients, 'patient')}, "
            f"O:E {ratio}{discrimination}"
        )
    typer.echo(f"page: {done.page}")


@app.command("retrain")
def registry_retrain(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Export, train and compare with the served bundle. Nothing is promoted.

    The run's settings are those of retraining.settings; registry, outcomes and run folder are set by the node.

    Exit status: 0 the gate was passed, 3 it was not.

    Example: dicomnode registry retrain --config ae_config.toml
    """
    from rich.progress import Progress

    from dicomnode.operations.audited import note_command
    from dicomnode.registry.retraining import retrain

    config = load(config_file)
    os.nice(19)  # patients' studies go first
    # Raised as an exception, it ends the training process too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _opened(config) as catalog, Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("scans", total=None)
        note_command(config, "registry retrain", {"folder": str(config.retraining.folder)})
        done = retrain(config, catalog, lambda now, total: bar.update(task, completed=now, total=total))
    if done.refused:
        typer.echo(f"{done.run}: the gate refused the bundle:", err=True)
        for reason in done.refused:
            typer.echo(f"  {reason}", err=True)
        raise SystemExit(3)
    weights = config.analysis.weights
    typer.echo(
        f"{done.run}: passed the gate; `training promote {done.run} --to {weights}` puts its bundle into service"
    )


@contextmanager
def _opened(config: "Config") -> "Iterator[Catalog]":
    from dicomnode.service.processes import prepare_folders
    from dicomnode.store.catalog.catalog import Catalog

    prepare_folders(config)
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog:
        yield catalog
