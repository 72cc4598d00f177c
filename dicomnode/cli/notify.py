"""`dicomnode notify`."""

from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load
from dicomnode.errors import UsageError

app = typer.Typer(help="Who is told what became of a study.", no_args_is_help=True)


@app.callback()
def _notify() -> None:
    """Who is told what became of a study."""


@app.command("test")
def notify_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help=r"The name of a \[\[notify]] table.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a test message to one receiver, now and once.

    Exit status: 0 it was taken, 6 it was not.

    Example: dicomnode notify test it-department
    """
    import time
    import uuid

    from dicomnode.outbound.notify.sending import find, send
    from dicomnode.store.records import Event

    settings = load(config)
    to = find(settings, name)
    if to is None:
        known = ", ".join(n.name for n in settings.notify) or "none"
        raise UsageError(f"{name!r} is no [[notify]] table of {config} (known: {known})")
    event = Event(uuid.uuid4().hex, "0.0", 0, "failed", "this is only a test", time.time())
    send(settings, to, event, None)
    typer.echo(f"{name} took the test message {event.event_id}")
