"""`python -m training`."""

from training.cli.commands import main

main()
