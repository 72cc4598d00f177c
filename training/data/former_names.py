"""Names in runs made before "prior" took the place of "earlier": still read, no longer written."""

from collections.abc import Mapping

#: Columns of `cohort.parquet`.
COLUMNS = {"earlier_scan": "prior_scan", "years_since_earlier": "years_since_prior"}
#: Keys of the settings' table `[deep]`.
DEEP = {"earlier": "prior"}


def deep_of_today(table: Mapping[str, object]) -> dict[str, object]:
    """Return a table `[deep]` under the keys of today. Where it has both keys, the former one stays, to be refused."""
    return {key if DEEP.get(key, key) in table else DEEP[key]: value for key, value in table.items()}
