"""
What baselines cost: seconds and peak memory of fitting and of ranking users, against the size of the catalog.

    python benchmarks/baselines.py [--items 12000 100000 1000000] [--baselines rules item_knn] [--json baselines.json]

The log is made up: 30 events an item and 30 a user on average, lengths of histories geometric with at least 2 events,
items skewed (a tenth of them has 56 % of the events), and half of the events one of the 20 items behind the last one,
so that some pairs are common. Each row is a process of its own with one thread. Seconds are those of the processor, so
that other programs disturb them less; peak memory is the system's (`ru_maxrss`) and includes the imports and the log.
10,000 users are ranked as in an evaluation, with and without their history.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_seqrec.baselines import BASELINES, fit_baseline
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.collators import RankingCollator
from hf_seqrec.data.histories import HistoryDataset
from hf_seqrec.data.sequences import Sequences

_EVENTS_OF_AN_ITEM, _MEAN_LENGTH, _USERS_SCORED = 30, 30, 10_000


def made_up_log(n_items: int) -> Sequences:
    """Make the histories of `n_items` users."""
    rng = np.random.default_rng(0)
    lengths = 1 + rng.geometric(1 / (_MEAN_LENGTH - 1), n_items)
    offsets = np.append(0, np.cumsum(lengths))
    n_events = int(offsets[-1])
    # Popular items are those of low rows, as in a built catalog.
    items = 1 + (n_items * rng.random(n_events) ** 4).astype(np.int32)
    goes_on = rng.random(n_events) < 0.5
    goes_on[offsets[:-1]] = False
    # An event that goes on is a small step from where its run began.
    began = np.maximum.accumulate(np.where(goes_on, 0, np.arange(n_events)))
    steps = rng.integers(1, 21, n_events, dtype=np.int32)
    items = np.where(goes_on, 1 + (items[began] + steps - 1) % n_items, items).astype(np.int32)
    catalog = Catalog.from_items([str(item) for item in range(1, n_items + 1)])
    return Sequences(items, offsets, catalog, [str(user) for user in range(n_items)])


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, n_items: int) -> dict[str, Any]:
    """Fit a baseline and score with it, in this process."""
    torch.set_num_threads(1)
    sequences = made_up_log(n_items)
    users, starts, ends = np.arange(n_items), sequences.offsets[:-1], sequences.offsets[1:]
    train = HistoryDataset(sequences, users, starts, ends - 1, has_targets=False)
    row: dict[str, Any] = {"baseline": name, "items": n_items, "events": sequences.n_interactions}
    row["bytes_before"] = peak_bytes()
    start = time.process_time()
    try:
        baseline = fit_baseline(name, train)
    except ValueError as error:
        return row | {"refused": str(error)}
    row |= {"fit_seconds": time.process_time() - start, "fit_peak_bytes": peak_bytes()}
    test = HistoryDataset(sequences, users, starts, ends - 1, has_targets=True)
    collate, n_users = RankingCollator(_MEAN_LENGTH * 20), min(_USERS_SCORED, n_items)
    start = time.process_time()
    for first in range(0, n_users, baseline.users_at_once):
        batch = collate(test.__getitems__(range(first, min(first + baseline.users_at_once, n_users))))
        baseline.rank_targets(baseline.scores(batch), batch["targets"], batch["seen_items"])
    seconds = time.process_time() - start
    return row | {"users": n_users, "score_seconds": seconds, "peak_bytes": peak_bytes()}


def print_row(row: dict[str, Any]) -> None:
    """Print one measurement as a row of a table."""
    counted = f"| {row['baseline']} | {row['items']:,} | {row['events']:,} |"
    if "refused" in row:
        print(f"{counted} refused: {row['refused']} |", flush=True)
        return
    per_user = 1000 * row["score_seconds"] / row["users"]
    fitted = f"{row['fit_seconds']:.1f} | {row['fit_peak_bytes'] / 2**30:.2f}"
    print(f"{counted} {fitted} | {per_user:.2f} | {row['peak_bytes'] / 2**30:.2f} |", flush=True)


def main() -> None:
    """Parse the command line, measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--baselines", choices=BASELINES, nargs="+", default=list(BASELINES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, n_items = arguments.one.split(":")
        print(json.dumps(measure(name, int(n_items))))
        return
    rows = []
    print("| | items | events | fit, s | peak of the fit, GiB | rank, ms a user | peak in all, GiB |")
    print("|---|---|---|---|---|---|---|")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for n_items in arguments.items:
        for name in arguments.baselines:
            command = [sys.executable, __file__, "--one", f"{name}:{n_items}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
            rows.append(json.loads(done.stdout))
            print_row(rows[-1])
    if arguments.json:
        described = {
            "log": {"events_of_an_item": _EVENTS_OF_AN_ITEM, "mean_length": _MEAN_LENGTH},
            "threads": 1,
            "processors": os.cpu_count(),
            "machine": platform.machine(),
            "versions": _versions(),
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "torch")}


if __name__ == "__main__":
    main()
