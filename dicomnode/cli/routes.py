"""`dicomnode routes`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.routing.rules import Action, ConditionCheck, RoutingDecision

app = typer.Typer(help="Which rule takes which study.", no_args_is_help=True)


@app.callback()
def _routes() -> None:
    """Which rule takes which study."""


@app.command("test")
def routes_test(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of DICOM files, or one file.")],
    config: ConfigOption = DEFAULT_CONFIG,
    calling: Annotated[str, typer.Option(help="The sender's AE title.")] = "",
    called: Annotated[str, typer.Option(help="Our AE title that it calls; else node.ae_title.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Tell which rule would take the studies of a folder, and why, without doing anything.

    Example: dicomnode routes test ~/scans/case-7 --calling CT1 --called ILD
    """
    from dicomnode.routing import trial

    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    settings = load(config)
    ours = (settings.node.ae_title, *settings.routing.ae_titles)
    if called and settings.node.check_called_ae and called not in ours:
        raise UsageError(f"--called {called}: the node would refuse the association; its AE titles: {', '.join(ours)}")
    decisions = trial.decide_folder(source, settings.rules, calling, called or settings.node.ae_title)
    if as_json:
        rows = [{"study_uid": uid, **_json(decision)} for uid, decision in decisions.items()]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for uid, decision in decisions.items():
        typer.echo(f"study {uid}")
        show(decision, values=True)


def show(decision: "RoutingDecision", *, values: bool) -> None:
    """Print a decision and its reasons for people. `values`: with what was found in the images."""
    typer.echo(f"{_taken(decision)}: {_done(decision.action)}")
    if decision.verdicts:
        rows = [[v.rule, _verdict(v.matched, v.taken), _why(v.checks, values)] for v in decision.verdicts]
        table(["rule", "", "why"], rows)


def _json(decision: "RoutingDecision") -> dict[str, Any]:
    found = decision.recorded()
    for verdict, told in zip(decision.verdicts, found["verdicts"], strict=True):
        for check, row in zip(verdict.checks, told["checks"], strict=True):
            row["seen"] = list(check.seen)
    return found


def _taken(decision: "RoutingDecision") -> str:
    if not decision.verdicts:
        return "there are no rules"
    return f"taken by {', '.join(decision.taken_by)}" if decision.taken_by else "no rule takes it"


def _done(action: "Action") -> str:
    if action.analyse is None and not action.forward_to:
        return "ignored"
    hold = ["held until it is released, then"] if action.hold else []
    parts = []
    if action.analyse is not None:
        to = "all destinations" if action.results_to is None else ", ".join(action.results_to)
        parts.append(f"analysed with {action.analyse!r} ({action.priority}), results to {to}")
    if action.forward_to:
        parts.append(f"originals forwarded to {', '.join(action.forward_to)}")
    return " ".join([*hold, "; ".join(parts)])


def _verdict(matched: bool, taken: bool) -> str:
    return "takes it" if taken else "would, but comes later" if matched else "no"


def _why(checks: "tuple[ConditionCheck, ...]", values: bool) -> str:
    lines = [f"{'yes' if c.held else 'NO'}: {c.text}" for c in checks]
    if values:
        found = [", ".join(c.seen) or "nothing" for c in checks]
        lines = [f"{line} (found: {seen})" for line, seen in zip(lines, found, strict=True)]
    return "\n".join(lines) or "it takes every study"
