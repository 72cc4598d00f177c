"""The catalogue's database: tables, migrations, and one module for each thing it remembers.

database, migrate → recording (images) → jobs (jobs and deliveries) → commitments, events, orders, priors, registry.
"""
