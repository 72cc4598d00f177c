"""`dicomnode tls`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.common import JsonOption

app = typer.Typer(help="Make certificates for trials of DICOM TLS, show certificates.", no_args_is_help=True)


class KeyChoice(StrEnum):
    """RSA of 3072 bits, which every device knows, or P-256."""

    rsa = "rsa"
    ec = "ec"


Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the CA and its certificates.")]
KeyOption = Annotated[KeyChoice, typer.Option("--key", help="rsa (3072 bits) or ec (P-256).")]


@app.command("ca")
def tls_ca(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Common name of the CA.")] = "dicomnode trial CA",
    days: Annotated[int, typer.Option(min=1, help="Days for which it is valid.")] = 1825,
    key: KeyOption = KeyChoice.rsa,
) -> None:
    """Make a CA for trials: ca.crt and ca.key.

    In routine certificates come from the hospital's own CA. Whoever has ca.key can make a certificate for anybody.

    Example: dicomnode tls ca tls
    """
    from dicomnode.operations.trial_certificates import make_ca

    made = make_ca(folder, name, days, "ec" if key is KeyChoice.ec else "rsa")
    typer.echo(f"{made.certificate} (give it to every peer)\n{made.key} (keep it secret)")


@app.command("issue")
def tls_issue(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Common name, and name of the files.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Name or address at which it is called; repeat for more.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days for which it is valid.")] = 397,
    key: KeyOption = KeyChoice.rsa,
) -> None:
    """Issue a certificate by the folder's trial CA: NAME.crt and NAME.key.

    Example: dicomnode tls issue tls node --host node.hospital.example --host 10.1.2.3
    """
    from dicomnode.network.certificates import read
    from dicomnode.operations.trial_certificates import issue

    made = issue(folder, name, host or [], days, "ec" if key is KeyChoice.ec else "rsa")
    typer.echo(f"{made.certificate}\n{made.key}\nsha256:{read(made.certificate)[0].sha256}")


@app.command("show")
def tls_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="PEM file with one or more certificates.")],
    as_json: JsonOption = False,
) -> None:
    """Show certificates: names, fingerprint, expiry.

    What stands under «identities» is what `certificates` in the configuration takes.

    Example: dicomnode tls show tls/node.crt
    """
    from dicomnode.network.certificates import read

    found = [
        {
            "subject": one.subject,
            "issuer": one.issuer,
            "not_before": f"{one.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after": f"{one.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "key": one.key,
            "ca": one.is_ca,
            "identities": [str(identity) for identity in one.identities],
        }
        for one in read(file)
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        for key, value in one.items():
            for line in value if isinstance(value, list) else [value]:
                typer.echo(f"{key:12}{line}")
        typer.echo("")
