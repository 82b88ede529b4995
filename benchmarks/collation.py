"""
Batches of histories per second: the collators of hf_seqrec against a list of dicts, the usual way with `datasets`.

    python benchmarks/collation.py [--max_length 50] [--batch_size 256]

All in one process, the same users in the same random order, `input_ids`, `attention_mask` and `labels` out.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from hf_seqrec.data.collators import NextItemCollator, RankingCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.synthetic import build_synthetic


def collate_dicts(examples: list[dict[str, Any]], max_length: int) -> dict[str, torch.Tensor]:
    """Pad lists one user at a time."""
    windows = [example["item_ids"][-(max_length + 1) :] for example in examples]
    length = max(map(len, windows)) - 1
    return {
        "input_ids": torch.tensor([w[:-1] + [0] * (length + 1 - len(w)) for w in windows]),
        "attention_mask": torch.tensor([[1] * (len(w) - 1) + [0] * (length + 1 - len(w)) for w in windows]),
        "labels": torch.tensor([w[1:] + [-100] * (length + 1 - len(w)) for w in windows]),
    }


def sequences_per_second(batches: Callable[[], Iterable[Any]], n_sequences: int, repeats: int) -> float:
    """Median over repeats of going through all batches once."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _batch in batches():
            pass
        rates.append(n_sequences / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--max_length", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--n_users", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    max_length = arguments.max_length

    with tempfile.TemporaryDirectory() as folder:
        sequences = load_sequences(build_synthetic(Path(folder) / "data", n_users=arguments.n_users))
    splits = leave_one_out(sequences)
    train, test = splits.train, splits.test
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    chunks = [order[start : start + arguments.batch_size] for start in range(0, len(order), arguments.batch_size)]
    lists = [train.history(index).tolist() for index in range(len(train))]
    table = datasets.Dataset.from_dict({"item_ids": lists})

    next_item, ranking = NextItemCollator(max_length), RankingCollator(max_length)
    random_window = NextItemCollator(max_length, window="random")
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "datasets.Dataset, list of dicts": lambda: (
            collate_dicts(table.__getitems__(chunk), max_length) for chunk in chunks
        ),
        "plain Python lists, list of dicts": lambda: (
            collate_dicts([{"item_ids": lists[index]} for index in chunk], max_length) for chunk in chunks
        ),
        "NextItemCollator": lambda: (next_item(train.__getitems__(chunk)) for chunk in chunks),
        "NextItemCollator, random window": lambda: (random_window(train.__getitems__(chunk)) for chunk in chunks),
        "NextItemCollator in a DataLoader": lambda: DataLoader(
            train, batch_size=arguments.batch_size, sampler=order, collate_fn=next_item
        ),
        "RankingCollator": lambda: (ranking(test.__getitems__(chunk)) for chunk in chunks),
    }
    print(f"{sequences}, max_length {max_length}, batch_size {arguments.batch_size}, one process, one thread")
    baseline = 0.0
    for name, batches in ways.items():
        rate = sequences_per_second(batches, len(order), arguments.repeats)
        baseline = baseline or rate
        print(f"{name:36}{rate:>12,.0f} seq/s{rate / baseline:>8.1f}x")


if __name__ == "__main__":
    main()
