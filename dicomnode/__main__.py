"""`python -m dicomnode`: the same as the `dicomnode` command."""

from dicomnode.cli import main

main()
