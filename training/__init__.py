"""Offline training on the registry: from scans and outcomes to a model bundle that the node may serve."""
