"""Training: arguments, the Trainer and what it needs, and the steps and reports of `hf-seqrec train`."""
