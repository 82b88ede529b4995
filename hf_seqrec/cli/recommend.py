"""
Ask a checkpoint for recommendations: by a history typed in, or by a user of a dataset folder.

    hf-seqrec recommend runs/ml-1m --history 1193 661 914
    hf-seqrec recommend runs/ml-1m --dataset data/ml-1m --user 42
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from ..checkpoints.load import load_checkpoint
from ..data.sequences import load_sequences
from ..evaluation.tables import print_ranking


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line and print titles and scores."""
    parser = argparse.ArgumentParser(prog="hf-seqrec recommend", description=__doc__.split("\n")[1])
    parser.add_argument("checkpoint", help="A checkpoint folder or the id of a model on the Hub.")
    parser.add_argument("--history", nargs="+", help="Raw item ids, oldest first.")
    parser.add_argument("--user", help="Raw id of a user of --dataset, instead of a history.")
    parser.add_argument("--dataset", help="Dataset folder or Hub id that has the user.")
    parser.add_argument("--top_k", type=int, default=10)
    parser.add_argument("--include_seen", action="store_true", help="Also recommend what is in the history.")
    arguments = parser.parse_args(command_line)
    if (arguments.history is None) == (arguments.user is None):
        parser.error("give either --history or --user")
    if arguments.user is not None and arguments.dataset is None:
        parser.error("--user needs the --dataset that has the user")

    try:
        _recommend(arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")


def _recommend(arguments: argparse.Namespace) -> None:
    """Print what comes after the history, or the user's."""
    model, catalog = load_checkpoint(arguments.checkpoint)
    history = arguments.history
    if history is None:
        sequences = load_sequences(arguments.dataset)
        # By raw id, not by row: the dataset may have been built again since the checkpoint.
        history = sequences.catalog.decode(sequences.history(arguments.user))
    rows, unknown = catalog.encode_known(history)
    if unknown:
        print(f"{unknown} of {len(history)} items are not in this model's catalog and were left out.")
    if not len(rows):
        raise ValueError(f"none of the {len(history)} items is in this model's catalog of {catalog.n_items:,} items.")

    print(f"History, {len(rows)} items, the last ones:")
    for title in catalog.describe(rows[-5:]):
        print(f"    {title}")
    best, scores = model.recommend(
        torch.from_numpy(rows)[None], top_k=arguments.top_k, exclude_seen=not arguments.include_seen
    )
    print_ranking(catalog, best[0].tolist(), scores[0].tolist())


if __name__ == "__main__":
    main()
