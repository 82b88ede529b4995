"""
One training step of every model: parameters, state per user, and seconds, at the shapes of MovieLens-1M.

    python benchmarks/train_step.py [--threads 1] [--length 200] [--models mamba4rec sasrec] [--json step.json]

Same width, catalog and batches for all; each model has the layers and heads of its own defaults. The batches are made
up, with the lengths of MovieLens-1M's histories (a quarter fill the window, the others are log-normal), and a loss at
every position. One round runs each model once, so that a busy machine is unfair to none; the first is not counted.
"""

import argparse
import json
import os
import platform
import statistics
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
from hf_seqrec.data.histories import HistoryBatch
from hf_seqrec.data.objectives import collators_for


def make_histories(batch: int, length: int, n_items: int) -> HistoryBatch:
    """Make up a batch of histories, long and short as in MovieLens-1M, in proportion to `length`."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(0.48 * length), 0.95, batch).astype(np.int64), 5, length) + 1
    stops = lengths.cumsum()
    rows = rng.integers(1, n_items + 1, stops[-1], dtype=np.int32)
    return HistoryBatch(rows, stops - lengths, stops, targets=None, users=np.arange(batch))


def make_model(model_type: str, n_items: int, length: int) -> Any:
    """Make a model with its own defaults, for histories of `length`."""
    config = AutoConfig.for_model(model_type, vocab_size=hf_seqrec.config_class(model_type).vocab_size_for(n_items))
    if config.max_position_embeddings is not None:
        config.max_position_embeddings = length
    set_seed(0)
    return AutoModel.from_config(config).train()


def train_step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    """Return the seconds of a forward, a backward and an update."""
    start = time.perf_counter()
    optimizer.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def state_bytes(model: Any, length: int) -> int | None:
    """Return the bytes that a user's state takes after `length` items; `None` where there is no state."""
    if model.config.stateless_because is not None:
        return None
    model.eval()
    with torch.no_grad():
        cache = model(torch.ones(1, length, dtype=torch.long), use_cache=True).cache
    model.train()
    return sum(state.nbytes for state in cache.states.values())


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time every model in interleaved rounds."""
    histories = make_histories(arguments.batch, arguments.length, arguments.items)
    runs = {}
    for model_type in arguments.models:
        model = make_model(model_type, arguments.items, arguments.length)
        batch = collators_for(model.config, arguments.length).training([histories])
        runs[model_type] = (model, torch.optim.AdamW(model.parameters(), lr=1e-3), batch)
    seconds: dict[str, list[float]] = {model_type: [] for model_type in runs}
    for turn in range(arguments.rounds + 1):
        for model_type, run in runs.items():
            elapsed = train_step(*run)
            if turn > 0:
                seconds[model_type].append(elapsed)
    rows = [
        {
            "model": model_type,
            "layers": model.config.num_hidden_layers,
            "parameters": model.num_parameters(),
            "state_bytes": state_bytes(model, arguments.length - 1),
            "seconds": statistics.median(seconds[model_type]),
            "fastest": min(seconds[model_type]),
        }
        for model_type, (model, _, _) in runs.items()
    ]
    return {
        "batch": arguments.batch,
        "length": arguments.length,
        "items": arguments.items,
        "positions": int((histories.stops - histories.starts - 1).sum()),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what `measure` found."""
    print(
        f"Training step, float32, {result['batch']} histories of at most {result['length']} "
        f"({result['positions']:,} items), catalog of {result['items']:,}, {result['threads']} thread(s)"
    )
    print(f"{'':12}{'layers':>8}{'parameters':>12}{'state, bytes':>14}{'median':>10}{'fastest':>10}")
    for row in result["rows"]:
        state = "-" if row["state_bytes"] is None else f"{row['state_bytes']:,}"
        print(
            f"{row['model']:12}{row['layers']:>8}{row['parameters']:>12,}{state:>14}"
            f"{row['seconds']:>8.3f} s{row['fastest']:>8.3f} s"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(hf_seqrec.MODEL_TYPES), choices=hf_seqrec.MODEL_TYPES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
