"""
Loss and gradients of a softmax over the whole catalog: seconds and memory, ours against two of PyTorch's.

    python benchmarks/softmax.py [--items 3416 1e5 1e6 1e7] [--threads 2] [--rounds 3] [--json softmax.json]

Each measurement is a process of its own, and a round has one of each way, so that a busy machine is unfair to none. A
process computes the loss once to warm up and then `--repeats` times; the shortest counts, and of the rounds the
median. `extra GiB` is the highest memory of the process less what it had with states, table, and the table's gradient
(which every way has to make) in place. What would not fit into this machine is left out, and the table says so.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As `trainer/run.py` sets it: idle OpenMP threads that spin for long take the processor from whoever works. Read when
# torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_seqrec.models import loss_full_softmax as losses

_GIB = 2**30


def ours(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of this package, in the way that it chooses for the catalog."""
    return losses.full_softmax_loss(hidden, items, labels)


def ours_whole(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return the loss as it is for small catalogs."""
    losses._LARGEST_WHOLE_CATALOG = len(items)
    return losses.full_softmax_loss(hidden, items, labels)


def ours_chunked(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return the loss as it is for large catalogs."""
    losses._LARGEST_WHOLE_CATALOG = 0
    return losses.full_softmax_loss(hidden, items, labels)


def cross_entropy(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return what is usually written; the padding row takes part."""
    return F.cross_entropy(hidden @ items.T, labels)


def linear_cross_entropy(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return PyTorch's loss in chunks of the batch, as many as it chooses; the padding row takes part."""
    return F.linear_cross_entropy(hidden, items, labels, options=torch.nn.LinearCrossEntropyOptions())


def linear_cross_entropy_64(hidden: Tensor, items: Tensor, labels: Tensor) -> Tensor:
    """Return PyTorch's loss in chunks of 64 positions."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=64)
    return F.linear_cross_entropy(hidden, items, labels, options=options)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ours": ours,
    "cross_entropy": cross_entropy,
    "linear_cross_entropy": linear_cross_entropy,
    "linear_cross_entropy_64": linear_cross_entropy_64,
    "ours_whole": ours_whole,
    "ours_chunked": ours_chunked,
}


def measure(way: str, n_items: int, n_targets: int, width: int, threads: int, repeats: int) -> dict[str, Any]:
    """Time one way in this process, and see how much memory it takes beyond what every way needs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    hidden = torch.randn(n_targets, width, requires_grad=True)
    items = (torch.randn(n_items + 1, width) * 0.1).requires_grad_()
    labels = torch.randint(1, n_items + 1, (n_targets,))
    # The gradient that will be there, touched, and the libraries that a first call loads.
    gradient = torch.ones_like(items)
    WAYS[way](
        torch.ones(8, width, requires_grad=True), torch.ones(9, width), torch.ones(8, dtype=torch.long)
    ).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del gradient
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        loss = WAYS[way](hidden, items, labels)
        loss.backward()
        seconds.append(time.perf_counter() - start)
        hidden.grad = items.grad = None
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": min(seconds[1:] or seconds), "extra_bytes": extra, "loss": loss.item()}


def fits(way: str, n_items: int, n_targets: int, width: int) -> bool:
    """Tell whether a way will fit into this machine's memory: all scores three times, where it makes them."""
    table = 3 * n_items * width * 4
    scores = 3 * n_items * n_targets * 4 if way == "cross_entropy" else 0
    return table + scores < 0.85 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def targets_for(n_items: int, arguments: argparse.Namespace) -> int:
    """Return the number of positions: those of a MovieLens-1M batch for its catalog, else as asked."""
    return arguments.small_targets if n_items < 20_000 else arguments.targets


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all ways for all catalogs, each in a process of its own, in interleaved rounds."""
    rows = []
    for n_items in arguments.items:
        n_targets = targets_for(n_items, arguments)
        measured: dict[str, list[dict[str, Any]]] = {way: [] for way in arguments.ways}
        for _ in range(arguments.rounds):
            for way in arguments.ways:
                if not fits(way, n_items, n_targets, arguments.width):
                    continue
                child = [sys.executable, __file__, "--measure", way, "--items", str(n_items)]
                child += ["--targets", str(n_targets), "--width", str(arguments.width)]
                child += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
                done = subprocess.run(child, capture_output=True, text=True, check=True)
                measured[way].append(json.loads(done.stdout))
        for way, runs in measured.items():
            row: dict[str, Any] = {"items": n_items, "targets": n_targets, "way": way}
            if runs:
                row |= {name: statistics.median(one[name] for one in runs) for name in runs[0]}
            rows.append(row)
            print_row(row, rows)
    return rows


def print_row(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print a row of the table, beside what is usually written for the same catalog."""
    usual = [other for other in rows if other["items"] == row["items"] and other["way"] == "cross_entropy"]
    begin = f"{row['items']:>12,}{row['targets']:>9,}  {row['way']:24}"
    if "seconds" not in row:
        print(f"{begin}does not fit into memory", flush=True)
        return
    ratio = f"{usual[0]['seconds'] / row['seconds']:.2f}x" if usual and "seconds" in usual[0] else ""
    memory = row["extra_bytes"] / _GIB
    print(f"{begin}{row['seconds']:>10.3f}{memory:>11.3f}{row['loss']:>12.5f}{ratio:>18}", flush=True)


def main() -> None:
    """Parse the command line, measure, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    as_count = lambda text: int(float(text))  # noqa: E731
    parser.add_argument("--items", type=as_count, nargs="+", default=[3416, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--targets", type=int, default=512, help="Positions with a label.")
    parser.add_argument("--small_targets", type=int, default=8192, help="The same for fewer than 20,000 items.")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["cross_entropy", *(w for w in WAYS if w[:5] != "cross")]
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        (n_items,) = arguments.items
        measured = measure(
            arguments.measure, n_items, arguments.targets, arguments.width, arguments.threads, arguments.repeats
        )
        print(json.dumps(measured))
        return
    print(
        f"{'items':>12}{'targets':>9}  {'way':24}{'seconds':>10}{'extra GiB':>11}{'loss':>12}{'to cross_entropy':>18}"
    )
    rows = run(arguments)
    result = {
        "threads": arguments.threads,
        "width": arguments.width,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
