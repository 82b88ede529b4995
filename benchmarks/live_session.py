"""
What an update of a live session takes, however long the history: add an event, recommend ten items, one user, a CPU.

    python benchmarks/live_session.py [--checkpoint runs/ml-1m] [--lengths 10 1000 100000] [--json live_session.json]

Without a checkpoint, models with the shape of their defaults (Mamba4Rec with two layers) and random weights: they take
as long as trained ones. Raw ids in, raw ids and titles out. A session goes on for a tenth of its length at most, then
the next user's is measured. One step of every length is taken in turn, so that a busy machine is unfair to none;
re-encoding the most recent `--window` events, as one does without a state, takes its turn among them. Scores are
compared with those of the whole history encoded at once.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin take the processor from whoever works. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec import Catalog, Recommender
from hf_seqrec.inference.sessions import Session, SessionStore


def make_recommender(model_type: str, n_items: int) -> Recommender:
    """Make a model with its own defaults, Mamba4Rec with two layers, and a catalog of made-up items."""
    fields: dict[str, Any] = {"num_hidden_layers": 2} if model_type == "mamba4rec" else {}
    config_class = hf_seqrec.config_class(model_type)
    config = AutoConfig.for_model(model_type, vocab_size=config_class.vocab_size_for(n_items), **fields)
    set_seed(0)
    titles = [f"Title of item {row}" for row in range(n_items)]
    catalog = Catalog.from_items([str(10_000 + row) for row in range(n_items)], title=titles)
    return Recommender(AutoModel.from_config(config), catalog)


class Feed:
    """Sessions of about one length, and the events that come next."""

    def __init__(self, store: SessionStore, length: int) -> None:
        self.store, self.length = store, length
        self.rng = np.random.default_rng(length)
        self.ids = store.catalog.item_ids.to_pylist()
        self.users = 0
        self.seconds: list[float] = []
        self.begin()

    def some(self, n: int) -> list[str]:
        """Draw items."""
        return [self.ids[place] for place in self.rng.integers(0, len(self.ids), n)]

    def begin(self) -> None:
        """Begin the session of a new user, without measuring it."""
        self.users += 1
        self.history = self.some(self.length)
        self.session: Session = self.store.session(f"{self.length}-{self.users}")
        self.session.extend(self.history)

    def step(self) -> None:
        """Add an event and recommend, and note how long it took."""
        if len(self.history) >= self.length + max(1, self.length // 10):
            self.begin()
        item = self.some(1)[0]
        start = time.perf_counter()
        self.session.add(item)
        self.session.recommend(top_k=10)
        self.seconds.append(time.perf_counter() - start)
        self.history.append(item)

    @torch.inference_mode()
    def difference(self) -> float:
        """Return the largest difference of a score from that of the whole history at once."""
        model, catalog = self.store.model, self.store.catalog
        whole = model(torch.from_numpy(catalog.encode(self.history))[None]).logits[0]
        found = self.session.recommend(top_k=catalog.n_items, exclude_seen=False)
        expected = whole[torch.from_numpy(catalog.encode([best.item_id for best in found]))]
        return float((torch.tensor([best.score for best in found]) - expected).abs().max())


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Summarise in milliseconds."""
    return {name: float(np.percentile(seconds, q)) * 1e3 for name, q in (("p50_ms", 50), ("p99_ms", 99))}


def measure(recommender: Recommender, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one model at every length."""
    max_users = arguments.steps + len(arguments.lengths) * 20
    store = SessionStore(recommender.model, recommender.catalog, max_users=max_users)
    feeds = [Feed(store, length) for length in arguments.lengths]
    recent = feeds[0].some(arguments.window)
    encoding: list[float] = []
    for turn in range(-20, arguments.steps):
        for feed in feeds:
            feed.step()
        # Fewer of what takes longer.
        if turn % 10 == 0:
            start = time.perf_counter()
            recommender.recommend(recent, top_k=10)
            encoding.append(time.perf_counter() - start)
        if turn == -1:
            # The first ones compile and warm up.
            encoding.clear()
            for feed in feeds:
                feed.seconds.clear()
    config = recommender.model.config
    return {
        "model": config.model_type,
        "layers": config.num_hidden_layers,
        "items": config.n_items,
        "bytes_per_user": store.bytes_per_user,
        "steps": arguments.steps,
        "add_and_recommend": [
            {"length": feed.length, **percentiles(feed.seconds), "largest_difference": feed.difference()}
            for feed in feeds
        ],
        "encode_again": {"length": arguments.window, **percentiles(encoding)},
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what was measured."""
    load = ", ".join(f"{value:.1f}" for value in result["load_average"])
    print(f"{result['processors']} processors, {result['threads']} thread(s), load average {load}")
    print(f"{'':12}{'history':>10}{'p50':>12}{'p99':>12}{'difference':>13}{'bytes per user':>16}")
    for row in result["rows"]:
        for step in row["add_and_recommend"]:
            print(
                f"{row['model']:12}{step['length']:>10,}{step['p50_ms']:>9.2f} ms{step['p99_ms']:>9.2f} ms"
                f"{step['largest_difference']:>13.1e}{row['bytes_per_user']:>16,}"
            )
        again = row["encode_again"]
        print(f"{'  encoded':12}{again['length']:>10,}{again['p50_ms']:>9.2f} ms{again['p99_ms']:>9.2f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "--checkpoint", nargs="*", default=[], help="Checkpoints to measure instead of made-up models."
    )
    parser.add_argument("--models", nargs="+", default=["mamba4rec", "mambarec", "gru4rec"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[10, 1_000, 100_000])
    parser.add_argument("--window", type=int, default=2_000, help="How many events are encoded again.")
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recommenders = [Recommender.from_pretrained(checkpoint) for checkpoint in arguments.checkpoint]
    result: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        # Of the last 1, 5 and 15 minutes, before the measurement: above the number of processors, others were at work.
        "load_average": os.getloadavg(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": [
            measure(recommender, arguments)
            for recommender in recommenders or [make_recommender(name, arguments.items) for name in arguments.models]
        ],
    }
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
