"""`python -m postgrad`: the same as the `postgrad` command."""

from postgrad.cli.main import main

main()
