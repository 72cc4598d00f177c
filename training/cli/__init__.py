"""The `training` command line."""
