"""A registry with a known truth: synthetic patients, their phantom scans and outcomes."""
