"""Sessions of users whom the site's OpenID provider knows."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Two new columns: a session of the provider's user has its role with it, as no row of users has."""
    op.add_column("console_sessions", sa.Column("issuer", sa.Text, nullable=False, server_default=""))
    op.add_column("console_sessions", sa.Column("role", sa.String(16), nullable=False, server_default=""))
