"""`dicomnode routes`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.routing.rules import RoutingDecision

app = typer.Typer(help="Try the routing rules.", no_args_is_help=True)


@app.callback()
def _routes() -> None:
    """Try the routing rules."""


@app.command("test")
def routes_test(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of DICOM files, or one file.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    calling: Annotated[str, typer.Option(help="AE title of the sender.")] = "",
    called: Annotated[str, typer.Option(help="AE title that the sender calls. Default: node.ae_title.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show which rule matches the studies in a folder, and why. Nothing is sent.

    Example: dicomnode routes test ~/scans/case-7 --calling CT1 --called ILD
    """
    from dicomnode import logs
    from dicomnode.routing import trial

    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    config = load(config_file)
    ours = (config.node.ae_title, *config.routing.ae_titles)
    if called and config.node.check_called_ae and called not in ours:
        raise UsageError(f"--called {called}: the node would reject the association; its AE titles: {', '.join(ours)}")
    decisions = trial.decide_folder(source, config.rules, calling, called or config.node.ae_title)
    if as_json:
        rows = [{"study_uid": uid, **_json(decision)} for uid, decision in decisions.items()]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for uid, decision in decisions.items():
        typer.echo(f"study {logs.escaped(uid)}")
        show(decision, values=True)


def show(decision: "RoutingDecision", *, values: bool) -> None:
    """Print a decision and its reasons. `values`: with the values found in the images."""
    from dicomnode.routing import words

    typer.echo(f"{words.taken(decision)}: {words.done(decision.action)}")
    if decision.verdicts:
        rows = [[v.rule, words.verdict(v), "\n".join(words.why(v, values=values))] for v in decision.verdicts]
        table(["rule", "", "why"], rows)


def _json(decision: "RoutingDecision") -> dict[str, Any]:
    found = decision.recorded()
    for verdict, told in zip(decision.verdicts, found["verdicts"], strict=True):
        for check, row in zip(verdict.checks, told["checks"], strict=True):
            row["seen"] = list(check.seen)
    return found
