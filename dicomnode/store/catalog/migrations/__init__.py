"""Alembic migrations of the catalogue. Make one: a new file in `versions`, and its number in `migrate.HEAD`."""
