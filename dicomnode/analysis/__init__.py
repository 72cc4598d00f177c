"""Pure analysis: arrays and records in, records out. No network, no database, no configuration."""
