"""`hf-seqrec build ml-1m`, at the address that it has in a clone."""

import sys

from hf_seqrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", "ml-1m", *sys.argv[1:]]))
