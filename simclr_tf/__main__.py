"""Runs run.py: the command `simclr-tf` of an installed package, and `python -m simclr_tf`.

In a checkout run.py and flags/ are beside this package. A wheel has them in `program/` within it,
because `run` and `flags` are too common as names for the top level of site-packages.
"""

import pathlib
import sys


def main() -> int:
    """Runs the program on the command line and returns its exit code."""
    package = pathlib.Path(__file__).resolve().parent
    program = package / "program"
    sys.path.insert(0, str(program if program.is_dir() else package.parent))
    import run

    return run.main(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
