"""`python -m fubako`: the same as the `fubako` command."""

from fubako.cli import main

if __name__ == "__main__":
    main()
