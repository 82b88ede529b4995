"""
Recommend what comes next: after a history typed in, or for a user of a dataset folder.

    hf-seqrec recommend runs/ml-1m --history 1193 661 914
    hf-seqrec recommend runs/ml-1m --dataset data/ml-1m --user 42
    hf-seqrec recommend org/mamba4rec-ml-1m --history 1193 661 --exclude 914
"""

from collections.abc import Sequence

from ..argument_parser import CommandParser
from ..data.catalog import Catalog
from ..data.sequences import load_sequences
from ..evaluation.tables import print_ranking
from ..inference.recommendation import Answer
from ..inference.recommender import Recommender
from .options import add_checkpoint, add_switch


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line and print titles and scores."""
    parser = CommandParser("hf-seqrec recommend", __doc__ or "")
    add_checkpoint(parser)
    parser.add_argument("--history", nargs="+", metavar="ITEM_ID", help="Raw item ids, oldest first.")
    parser.add_argument("--user", metavar="USER_ID", help="Raw id of a user of --dataset, instead of a history.")
    parser.add_argument("--dataset", help="Dataset folder or Hub id that has the user.")
    parser.add_argument("--top_k", type=int, default=10, help="Number of items to recommend.")
    add_switch(parser, "include_seen", help="Recommend items of the history, too.")
    parser.add_argument("--candidates", nargs="+", metavar="ITEM_ID", help="Recommend only from these raw item ids.")
    parser.add_argument("--exclude", nargs="+", metavar="ITEM_ID", help="Never recommend these raw item ids.")
    add_switch(parser, "index", help="Search the index that `hf-seqrec index` built, instead of scoring all items.")
    arguments = parser.parse_args(command_line)
    if (arguments.history is None) == (arguments.user is None):
        raise ValueError("give either `--history` or `--user`.")
    if arguments.user is not None and arguments.dataset is None:
        raise ValueError("`--user` needs the `--dataset` that has the user.")

    recommender = Recommender.from_pretrained(arguments.checkpoint, arguments.revision, index=arguments.index)
    history = arguments.history
    if history is None:
        sequences = load_sequences(arguments.dataset)
        # By raw id, not by row: the dataset may have been built again since the checkpoint.
        history = sequences.catalog.decode(sequences.history(arguments.user))
    (answer,) = recommender.recommend_many(
        [history], arguments.top_k, not arguments.include_seen, arguments.candidates, arguments.exclude
    )
    _print_history(recommender.catalog, history, answer)
    if answer.unknown_candidates:
        count = f"{answer.unknown_candidates} of {len(arguments.candidates)}"
        print(f"{count} candidates are not in this model's catalog and were left out.")
    rows = recommender.catalog.rows_of([best.item_id for best in answer.recommendations])
    print_ranking(recommender.catalog, rows.tolist(), [best.score for best in answer.recommendations])


def _print_history(catalog: Catalog, history: list[str], answer: Answer) -> None:
    """Print the last items of a history, and what was left out of it."""
    if answer.unknown_items:
        print(f"{answer.unknown_items} of {len(history)} items are not in this model's catalog and were left out.")
    if answer.is_popularity:
        print("Recommending the most popular items; their score is how often they are in the log.")
        return
    rows, _ = catalog.encode_known(history)
    print(f"History, {len(rows)} items, the last ones:")
    for title in catalog.describe(rows[-5:]):
        print(f"    {title}")
