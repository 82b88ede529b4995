"""
`hf-seqrec train`, at the address that it has in a clone; hf_seqrec/cli/train.py tells what it does.

    python trainer/run.py --config ml-1m/mamba4rec
    accelerate launch trainer/run.py --config trainer/recipes/ml-1m/mamba4rec.yaml
"""

import sys

from hf_seqrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
