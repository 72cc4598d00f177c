"""What the processes of a node count for monitoring."""
