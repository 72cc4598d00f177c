"""`dicomnode weights`."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load, table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer(help="Download, install and verify third-party segmentation weights.", no_args_is_help=True)


@app.command("list")
def weights_list(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """List known weights and the digests of installed ones.

    Example: dicomnode weights list --config ae_config.toml
    """
    from dicomnode import downloads
    from dicomnode.models import lungmask_weights

    here = downloads.installed(load(config_file).analysis.weights)
    table(
        ["name", "file", "segments", "installed, sha256"],
        [[k.name, k.file, k.what, here[k.file].sha256 if k.file in here else "no"] for k in lungmask_weights.KNOWN],
    )


@app.command("fetch")
def weights_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="R231, LTRCLobes, R231CovidWeb.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    mirror: Annotated[str | None, typer.Option(help="URL of a folder that holds the same files.")] = None,
) -> None:
    """Download weights. An interrupted download is resumed.

    Example: dicomnode weights fetch R231 --mirror https://files.hospital.example/lungmask
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from dicomnode import downloads
    from dicomnode.models import lungmask_weights
    from dicomnode.operations.audited import note_command

    config = load(config_file)
    note_command(config, "weights fetch", {"names": " ".join(names)})
    wanted = [lungmask_weights.find(name) for name in names]
    with Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), disable=not sys.stderr.isatty()
    ) as bar:
        for known in wanted:
            show = partial(_advance, bar, bar.add_task(known.name, total=None))
            address = config.weights.mirror if mirror is None else mirror
            done = downloads.fetch(known, config.analysis.weights, address, show)
            typer.echo(f"{known.name} installed: {done.path}, sha256 {done.sha256}")


@app.command("install")
def weights_install(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Weights files, with their published names.", exists=True)
    ],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Install weights files that were copied to this machine.

    For nodes without internet access.

    Example: dicomnode weights install /media/usb/unet_r231-d5d2fc3d.pth
    """
    from dicomnode.models import lungmask_weights
    from dicomnode.operations.audited import note_command

    config = load(config_file)
    folder = config.analysis.weights
    note_command(config, "weights install", {"files": " ".join(map(str, files))})
    for file in files:
        done = lungmask_weights.install(file, folder)
        typer.echo(f"installed {done.path}, sha256 {done.sha256}")


@app.command("verify")
def weights_verify(
    config_file: ConfigOption = DEFAULT_CONFIG,
    key: Annotated[
        list[Path], typer.Option(help="Public key; each bundle must be signed with one of those given.", exists=True)
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Verify installed weights and bundles: digests, golden cases, signatures.

    Signatures are verified with the keys given; without any, with analysis.trusted_keys if
    analysis.require_signed_bundles is set.

    Exit status: 0 all verified (or nothing installed), 4 a check failed.

    Example: dicomnode weights verify --config ae_config.toml
    """
    from dicomnode.models import lungmask_weights
    from dicomnode.models.build import trusted_keys

    analysis = load(config_file).analysis
    folder = analysis.weights
    trusted = trusted_keys(analysis.model_copy(update=_demanded(key)))
    verdicts = list(lungmask_weights.verify(folder, trusted))
    if not verdicts:
        typer.echo(f"nothing installed in {folder}")
        return
    table(["", "what", ""], [["ok" if v.ok else "FAILED", v.name, v.text] for v in verdicts])
    raise SystemExit(0 if all(v.ok for v in verdicts) else 4)


def _demanded(keys: list[Path]) -> dict[str, object]:
    return {"require_signed_bundles": True, "trusted_keys": tuple(keys)} if keys else {}


def _advance(bar: "Progress", task: "TaskID", have: int, total: int | None) -> None:
    bar.update(task, completed=have, total=total)
