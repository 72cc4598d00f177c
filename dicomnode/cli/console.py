"""`dicomnode console`."""

import getpass
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, configure, imports, load, table
from dicomnode.errors import UsageError

app = typer.Typer(help="The web pages for those who run the node, and who may use them.", no_args_is_help=True)
user = typer.Typer(help="Who may use the console.", no_args_is_help=True)
app.add_typer(user, name="user")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name that the user logs in with.")]


class RoleName(StrEnum):
    """As `console.roles`, which is not imported for `--help`."""

    reader = "reader"
    operator = "operator"
    administrator = "administrator"
    researcher = "researcher"


@app.command("serve", hidden=True)
def console_serve(
    config_file: ConfigOption = DEFAULT_CONFIG,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run the console (`serve` starts it)."""
    with imports():
        from dicomnode.console import server
        from dicomnode.service import signals

    config = configure(config_file, "console")
    server.run(config, signals.stopper(supervised=supervised))
    signals.leave()


@user.command("add")
def user_add(
    name: NameArgument,
    role: Annotated[RoleName, typer.Option(help="What the user may do; researchers see pseudonyms only.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a user; the password is asked for, or read from standard input.

    Example: dicomnode console user add anna --role operator
    """
    from dicomnode.operations import console_users

    config = load(config_file)
    console_users.add(config, name, role.value, _password(), time.time())
    typer.echo(f"{name} may log in as {role.value}")


@user.command("list")
def user_list(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the users and what they may do.

    Example: dicomnode console user list
    """
    from dicomnode.operations import console_users
    from dicomnode.operations.looking import local, text

    found = console_users.users(load(config_file))
    rows = [[one.name, one.role, local(text(one.created_at)), local(text(one.changed_at))] for one in found]
    table(["name", "role", "made", "password of"], rows)


@user.command("remove")
def user_remove(name: NameArgument, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove a user, who is logged out at once.

    Example: dicomnode console user remove anna
    """
    from dicomnode.operations import console_users

    console_users.remove(load(config_file), name)
    typer.echo(f"{name} may not log in any more")


@user.command("password")
def user_password(name: NameArgument, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Give a user another password, asked for or read from standard input; sessions end.

    Example: dicomnode console user password anna
    """
    from dicomnode.operations import console_users

    config = load(config_file)
    console_users.change_password(config, name, _password(), time.time())
    typer.echo(f"{name} has another password")


def _password() -> str:
    """Return the password that a person types twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise UsageError("the two passwords differ: nothing was changed")
    return first
