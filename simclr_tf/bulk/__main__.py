"""Runs `python -m simclr_tf.bulk`; see `program`."""

import sys

from simclr_tf.bulk import program

if __name__ == "__main__":
    sys.exit(program.main(sys.argv))
