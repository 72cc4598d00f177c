"""`dicomnode conformance`."""

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.common import JsonOption

app = typer.Typer()


@app.command("conformance")
def conformance(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; without it, standard output.")] = None,
    as_json: JsonOption = False,
    schema: Annotated[
        bool,
        typer.Option("--findings-schema", help="Instead, the JSON Schema of findings.json: each key, unit, meaning."),
    ] = False,
) -> None:
    """Write the DICOM conformance statement (PS3.2 annex N) of this version.

    It is made from the code and the configuration's model, and needs neither a configuration nor a network.

    Example: dicomnode conformance --out docs/conformance.md
    """
    from dicomnode.conformance import findings_schema, statement
    from dicomnode.files import write_whole

    if schema:
        text = findings_schema.text()
    else:
        sections = statement.build()
        text = statement.as_json(sections) if as_json else statement.markdown(sections)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, text)
