"""`dicomnode notify`."""

from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load
from dicomnode.errors import UsageError

app = typer.Typer(help="Test e-mail and webhook notifications.", no_args_is_help=True)


@app.callback()
def _notify() -> None:
    """Test e-mail and webhook notifications."""


@app.command("test")
def notify_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a [[notify]] table.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send one test message, without retries.

    Exit status: 0 accepted, 6 not accepted.

    Example: dicomnode notify test it-department
    """
    import time
    import uuid

    from dicomnode.outbound.notify.sending import find, send
    from dicomnode.store.records import Event

    config = load(config_file)
    to = find(config, name)
    if to is None:
        known = ", ".join(n.name for n in config.notify) or "none"
        raise UsageError(f"{config_file} has no [[notify]] table named {name!r} (known: {known})")
    event = Event(uuid.uuid4().hex, "0.0", 0, "failed", "this is a test", time.time())
    send(config, to, event, None, is_test=True)
    typer.echo(f"{name} accepted the test message {event.event_id}")
