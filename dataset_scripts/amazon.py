"""`hf-seqrec build amazon`, at the address that it has in a clone."""

import sys

from hf_seqrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", "amazon", *sys.argv[1:]]))
