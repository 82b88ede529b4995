"""`python -m hf_seqrec`: the command `hf-seqrec`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
