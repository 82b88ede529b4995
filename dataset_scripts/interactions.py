"""`hf-seqrec build`, at the address that it has in a clone."""

import sys

from hf_seqrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
