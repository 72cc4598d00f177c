"""What other systems are told of the work on a study: UPS tasks and performed procedure steps (MPPS)."""
