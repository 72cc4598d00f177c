"""`dicomnode console`."""

import getpass
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, configure, load, table
from dicomnode.errors import UsageError
from dicomnode.processes import imports

app = typer.Typer(help="The web pages for those who run the node, and who may use them.", no_args_is_help=True)
user = typer.Typer(help="Who may use the console.", no_args_is_help=True)
app.add_typer(user, name="user")
token = typer.Typer(help="Which programs may use DICOMweb.", no_args_is_help=True)
app.add_typer(token, name="token")

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


@token.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the program is called, in the audit trail too.")],
    role: Annotated[RoleName, typer.Option(help="What it may see; not researcher.")] = RoleName.reader,
    store_as: Annotated[
        str, typer.Option(metavar="AE_TITLE", help="As which caller it may store (STOW-RS); without, it may not.")
    ] = "",
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let a program use DICOMweb: prints its token, once. It goes into the header «Authorization: Bearer TOKEN».

    Example: dicomnode console token add viewer
    """
    from dicomnode.operations import web_tokens

    typer.echo(web_tokens.add(load(config_file), name, role.value, store_as, time.time()))


@token.command("list")
def token_list(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the programs with a token, what they may do, and when they were here last.

    Example: dicomnode console token list
    """
    from dicomnode.operations import web_tokens
    from dicomnode.operations.looking import local, text

    found = web_tokens.tokens(load(config_file))
    rows = [[t.name, t.role, t.calling_ae, local(text(t.created_at)), local(text(t.used_at))] for t in found]
    table(["name", "role", "stores as", "made", "last here"], rows)


@token.command("remove")
def token_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The program's.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a token void, at once.

    Example: dicomnode console token remove viewer
    """
    from dicomnode.operations import web_tokens

    web_tokens.remove(load(config_file), name)
    typer.echo(f"the token of {name} is void")


def _password() -> str:
    """Return the password that a person types twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise UsageError("the two passwords differ: nothing was changed")
    return first
