"""The command `hf-seqrec`."""
