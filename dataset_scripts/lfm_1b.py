"""`hf-seqrec build lfm-1b`, at the address that it has in a clone."""

import sys

from hf_seqrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", "lfm-1b", *sys.argv[1:]]))
