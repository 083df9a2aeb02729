"""`python -m comask` is the `comask` command."""

from comask.experiments.cli import main

if __name__ == "__main__":
    main()
