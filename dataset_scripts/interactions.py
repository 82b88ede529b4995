"""
Build a dataset folder from any log of interactions: .inter (RecBole), .csv, .tsv, .jsonl or .parquet.

    python dataset_scripts/interactions.py --raw log.csv --output data/my-shop --min_user_events 5 --min_item_events 5

Events are ordered by time (whole Unix seconds), those of the same second by their position in the log.
"""

from dataclasses import dataclass, field
from typing import Any

from transformers import HfArgumentParser

from hf_seqrec.data import InteractionsArguments, build_dataset, load_sequences


@dataclass
class PathArguments:
    """Where from, where to."""

    raw: str = field(metadata={"help": "The log: a .inter, .csv, .tsv, .jsonl or .parquet file."})
    output: str = field(metadata={"help": "The dataset folder. An earlier dataset there is replaced."})


def main() -> None:
    """Build and say what came out."""
    dataclasses: Any = (PathArguments, InteractionsArguments)
    parser = HfArgumentParser(dataclasses, description=__doc__.strip().splitlines()[0])
    paths, arguments = parser.parse_args_into_dataclasses()
    folder = build_dataset(paths.raw, paths.output, arguments, progress=True)
    sequences = load_sequences(folder)
    print(f"{folder}: {sequences}")
    n_short = sequences.statistics["n_users_not_evaluated"]
    print(f"{n_short:,} users have fewer than three events: kept for training, not evaluated.")


if __name__ == "__main__":
    main()
