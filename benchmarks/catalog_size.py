"""
What a training step over a catalog of millions costs: seconds and memory, by size of the catalog and optimizer.

    python benchmarks/catalog_size.py [--items 100000 1000000] [--optimizers rowwise_adagrad] [--json sizes.json]

A step is a forward, a backward with clipping, and an update, of made-up histories, with the sampled softmax at every
position against shared uniform negatives. `adamw` is what `--optim` is by default, with a dense gradient and two more
tables of state; `rowwise_adagrad` is `--embedding_optimizer rowwise_adagrad`. Then the model recommends to a batch of
users out of the whole catalog. Each case is a process of its own, whose peak memory is the operating system's. Of
cases that do not fit (`--most_gib`) only the memory of the tables is computed.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec.data.histories import HistoryBatch
from hf_seqrec.data.objectives import collators_for
from hf_seqrec.data.training_negatives import NegativesCollator
from hf_seqrec.training.embedding_optimizer import gradient_values, item_table_optimizer
from hf_seqrec.training.training_args import SeqRecTrainingArguments

_GIB = 2**30
# Tables of (v, d) float32 that exist during a step: the weights, and with AdamW two moments and two gradients, that of
# the histories and that of the loss, before they are added.
_TABLES = {"adamw": 5, "rowwise_adagrad": 1}


def peak_memory() -> int:
    """Return the most bytes that this process ever had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(arguments: argparse.Namespace, optimizer_name: str, n_items: int) -> dict[str, Any]:
    """Measure one catalog and optimizer, in this process."""
    before = peak_memory()
    set_seed(0)
    config = AutoConfig.for_model(
        arguments.model,
        vocab_size=hf_seqrec.config_class(arguments.model).vocab_size_for(n_items),
        hidden_size=arguments.width,
        item_loss="sampled_softmax",
        num_negatives=arguments.negatives,
    )
    start = time.perf_counter()
    model: Any = AutoModel.from_config(config).train()
    seconds = {"build": time.perf_counter() - start}
    training = SeqRecTrainingArguments(
        report_to="none", use_cpu=True, loss="sampled_softmax", num_negatives=arguments.negatives
    )
    parameters = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    if optimizer_name == "adamw":
        optimizer_class, options = transformers.Trainer.get_optimizer_cls_and_kwargs(training, model)
    else:
        optimizer_class, options = item_table_optimizer(model, training, training.embedding_learning_rate)
    optimizer = optimizer_class(parameters, **options)

    collate = NegativesCollator(
        collators_for(config, arguments.length).training, n_items, arguments.negatives, log_q=True
    )
    rng = np.random.default_rng(0)
    stops = np.arange(1, arguments.batch + 1) * (arguments.length + 1)
    steps = []
    for step in range(arguments.steps + 1):
        rows = rng.integers(1, n_items + 1, stops[-1], dtype=np.int32)
        users = np.arange(arguments.batch) + step * arguments.batch
        batch = collate([HistoryBatch(rows, stops - (arguments.length + 1), stops, targets=None, users=users)])
        start = time.perf_counter()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(gradient_values(model).parameters(), 1.0)
        optimizer.step()
        model.zero_grad()
        # The first makes the state.
        if step > 0:
            steps.append(time.perf_counter() - start)
    seconds |= {"step": statistics.median(steps), "fastest_step": min(steps)}
    trained = peak_memory()

    model.eval()
    start = time.perf_counter()
    model.recommend(batch["input_ids"], top_k=10)
    seconds["recommend"] = time.perf_counter() - start
    return {
        "optimizer": optimizer_name,
        "items": n_items,
        "parameters": model.num_parameters(),
        "seconds": seconds,
        "bytes": {"imports": before, "training": trained, "recommending_too": peak_memory()},
    }


def in_a_process(arguments: argparse.Namespace, optimizer: str, n_items: int) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    options = {
        "model": arguments.model,
        "width": arguments.width,
        "batch": arguments.batch,
        "length": arguments.length,
        "negatives": arguments.negatives,
        "steps": arguments.steps,
        "threads": arguments.threads,
        "items": n_items,
        "optimizers": optimizer,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, __file__, "--case", *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table_bytes(optimizer: str, n_items: int, width: int) -> int:
    """Compute what the item table takes in a step: weights, gradients and state, float32."""
    sums = 4 * (n_items + 1) if optimizer == "rowwise_adagrad" else 0
    return _TABLES[optimizer] * 4 * width * (n_items + 1) + sums


def print_table(result: dict[str, Any]) -> None:
    """Print what was measured, and the tables alone of what was not."""
    shape = result["shape"]
    print(
        f"{shape['model']}, width {shape['width']}, {shape['batch']} histories of {shape['length']} items, "
        f"{shape['negatives']} negatives, {result['threads']} thread(s)"
    )
    print(f"{'':18}{'items':>12}{'step':>10}{'recommend':>12}{'peak memory':>14}{'tables, computed':>19}")
    for row in result["rows"]:
        measured = f"{'not run':>10}{'':26}"
        if "seconds" in row:
            seconds, peak = row["seconds"], row["bytes"]["recommending_too"]
            measured = f"{seconds['step']:>8.3f} s{seconds['recommend']:>10.2f} s{peak / _GIB:>10.2f} GiB"
        tables = row["computed_table_bytes"] / _GIB
        print(f"{row['optimizer']:18}{row['items']:>12,}{measured}{tables:>15.2f} GiB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "--items", nargs="+", type=int, default=[100_000, 1_000_000, 5_000_000, 10_000_000, 31_600_000]
    )
    parser.add_argument("--optimizers", nargs="+", default=list(_TABLES), choices=list(_TABLES))
    parser.add_argument("--model", default="mamba4rec", choices=hf_seqrec.MODEL_TYPES)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--negatives", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--most_gib", type=float, default=12.0, help="Compute, but do not run, whose tables take more."
    )
    parser.add_argument("--case", action="store_true", help="Measure one case in this process, and print it as JSON.")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    if arguments.case:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments, arguments.optimizers[0], arguments.items[0])))
        return
    result: dict[str, Any] = {
        "shape": {name: getattr(arguments, name) for name in ("model", "width", "batch", "length", "negatives")},
        "threads": arguments.threads,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": [],
    }
    for n_items in arguments.items:
        for optimizer in arguments.optimizers:
            computed = table_bytes(optimizer, n_items, arguments.width)
            row = {"optimizer": optimizer, "items": n_items, "computed_table_bytes": computed}
            if computed <= arguments.most_gib * _GIB:
                row |= in_a_process(arguments, optimizer, n_items)
            result["rows"].append(row)
            print(json.dumps(row), file=sys.stderr)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
