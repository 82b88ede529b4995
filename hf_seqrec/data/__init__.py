"""From a dataset folder to batches: catalog, sequences, splits, windows, samplers, collators, negatives."""
