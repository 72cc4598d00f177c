"""What comes again: a correction that is turned back, and own results from whatever study they come back in."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """When a correction was accepted; an index of the delivered objects by their UID."""
    op.add_column("acceptances", sa.Column("at", sa.Float, nullable=False, server_default="0"))
    op.create_index("deliveries_instance", "deliveries", ["sop_instance_uid"])
