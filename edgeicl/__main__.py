"""`python -m edgeicl` is `edgeicl`."""

from edgeicl.cli import main

if __name__ == "__main__":
    main()
