"""Users of the console and their sessions. Times are UTC seconds, given by the caller."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, case, not_, or_, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import console_sessions, console_tokens, console_users

#: Sessions of one user, and of all; the oldest make room.
_MOST_OF_ONE, _MOST = 20, 2_000


@dataclass(frozen=True)
class ConsoleUser:
    """Somebody who may log in. `password`: its hash."""

    name: str
    role: str
    password: str = field(repr=False)
    created_at: float
    changed_at: float


@dataclass(frozen=True)
class ConsoleSession:
    """Somebody who is logged in, in the role that he has now. `issuer`: of the provider's user; "": one of ours."""

    name: str
    role: str
    began_at: float
    seen_at: float
    issuer: str


@dataclass(frozen=True)
class ConsoleToken:
    """A program that may use DICOMweb. `calling_ae`: the caller as whom it may store; "": it may not."""

    name: str
    role: str
    calling_ae: str
    created_at: float
    used_at: float | None


class ConsoleRows(Database):
    """The console's part of the catalogue."""

    def console_users(self) -> list[ConsoleUser]:
        """Return all users by name."""
        with self._read() as connection:
            rows = connection.execute(select(console_users).order_by(console_users.c.name))
            return [ConsoleUser(**row._mapping) for row in rows]

    def console_user(self, name: str) -> ConsoleUser | None:
        """Return the user of this name."""
        with self._read() as connection:
            row = connection.execute(select(console_users).where(console_users.c.name == name)).one_or_none()
        return None if row is None else ConsoleUser(**row._mapping)

    def add_console_user(self, name: str, role: str, password: str, now: float) -> bool:
        """Make a user. False, and nothing: there is one of this name."""
        values = {"name": name, "role": role, "password": password, "created_at": now, "changed_at": now}
        row = self._insert(console_users).values(values).on_conflict_do_nothing()
        with self._write() as connection:
            return bool(connection.execute(row.execution_options(preserve_rowcount=True)).rowcount == 1)

    def set_console_password(self, name: str, password: str, now: float) -> bool:
        """Give a user another password, and end his sessions. False: there is no such user."""
        values = {"password": password, "changed_at": now}
        with self._write() as connection:
            changed = connection.execute(console_users.update().where(console_users.c.name == name).values(values))
            connection.execute(console_sessions.delete().where(console_sessions.c.name == name))
            return changed.rowcount == 1

    def remove_console_user(self, name: str) -> bool:
        """Remove a user with his sessions. False: there is none."""
        with self._write() as connection:
            connection.execute(console_sessions.delete().where(console_sessions.c.name == name))
            return connection.execute(console_users.delete().where(console_users.c.name == name)).rowcount == 1

    def begin_console_session(
        self, token: str, name: str, now: float, ended_before: tuple[float, float], issuer: str = "", role: str = ""
    ) -> None:
        """Begin a session, and remove what has ended or is too many.

        Args:
            token: the hash of the browser's.
            name: the user's.
            now: the time.
            ended_before: a session that began before the first, or was last used before the second, has ended.
            issuer: whose user it is; "": one of ours.
            role: of the provider's user.
        """
        began, seen = ended_before
        newest = select(console_sessions.c.token).order_by(console_sessions.c.began_at.desc())
        mine = newest.where(console_sessions.c.name == name)
        with self._write() as connection:
            ended = (console_sessions.c.began_at < began) | (console_sessions.c.seen_at < seen)
            connection.execute(console_sessions.delete().where(ended))
            for older in (mine.offset(_MOST_OF_ONE - 1), newest.offset(_MOST - 1)):
                connection.execute(console_sessions.delete().where(console_sessions.c.token.in_(older)))
            row = {"token": token, "name": name, "began_at": now, "seen_at": now}
            row |= {"issuer": issuer, "role": role}
            connection.execute(console_sessions.insert().values(row))

    def console_session(self, token: str) -> ConsoleSession | None:
        """Return the session of this hash, whose user is still there; whether it has ended is for the caller."""
        held = console_sessions.c
        is_ours = held.issuer == ""
        role = case((is_ours, console_users.c.role), else_=held.role).label("role")
        query = select(held.name, role, held.began_at, held.seen_at, held.issuer)
        query = query.outerjoin_from(console_sessions, console_users, held.name == console_users.c.name)
        query = query.where(or_(not_(is_ours), console_users.c.name.is_not(None)))
        with self._read() as connection:
            row = connection.execute(query.where(console_sessions.c.token == token)).one_or_none()
        return None if row is None else ConsoleSession(**row._mapping)

    def see_console_session(self, token: str, now: float) -> None:
        """Note that a session was used."""
        mine = console_sessions.c.token == token
        with self._write() as connection:
            connection.execute(console_sessions.update().where(mine).values(seen_at=now))

    def end_console_session(self, token: str) -> None:
        """End a session."""
        with self._write() as connection:
            connection.execute(console_sessions.delete().where(console_sessions.c.token == token))

    def console_tokens(self) -> list[ConsoleToken]:
        """Return all programs by name."""
        with self._read() as connection:
            rows = connection.execute(select(*_of_token()).order_by(console_tokens.c.name))
            return [ConsoleToken(**row._mapping) for row in rows]

    def console_token(self, token: str) -> ConsoleToken | None:
        """Return the program whose token has this hash."""
        with self._read() as connection:
            row = connection.execute(select(*_of_token()).where(console_tokens.c.token == token)).one_or_none()
        return None if row is None else ConsoleToken(**row._mapping)

    def add_console_token(self, name: str, token: str, role: str, calling_ae: str, now: float) -> bool:
        """Let a program in; `token` is the hash of its own. False, and nothing: there is one of this name."""
        values = {"name": name, "token": token, "role": role, "calling_ae": calling_ae, "created_at": now}
        row = self._insert(console_tokens).values(values).on_conflict_do_nothing()
        with self._write() as connection:
            return bool(connection.execute(row.execution_options(preserve_rowcount=True)).rowcount == 1)

    def remove_console_token(self, name: str) -> bool:
        """Let a program in no more. False: there is none of this name."""
        with self._write() as connection:
            return connection.execute(console_tokens.delete().where(console_tokens.c.name == name)).rowcount == 1

    def see_console_token(self, name: str, now: float) -> None:
        """Note that a program was here."""
        with self._write() as connection:
            connection.execute(console_tokens.update().where(console_tokens.c.name == name).values(used_at=now))


def _of_token() -> list[Column[Any]]:
    return [column for column in console_tokens.c if column.name != "token"]
