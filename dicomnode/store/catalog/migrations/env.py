"""Alembic's entry: `migrate` gives it the connection, whose open transaction holds all of the change."""

from alembic import context

from dicomnode.store.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
