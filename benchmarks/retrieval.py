"""
What it costs to recommend out of a large catalog: exactly, a chunk at a time, and through FAISS.

    python benchmarks/retrieval.py [--items 100000 1000000] [--kinds exact ivf hnsw] [--json retrieval.json]

Item vectors are made up, of width 64: Gaussian clusters of 100 items each, as training draws items together that
people take together, with lengths that fall with the row, as popular items have longer ones. A user's state is an
item's vector with as much noise as signal. Users are asked for 64 at a time, and alone. Recall is of the exact top 10.
Each case is a process of its own; the size of an index is what it takes beside the model, in memory and on disk.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import faiss
import torch
import transformers

from hf_seqrec.inference.search_index import SearchIndex, recall
from hf_seqrec.models.item_scores import top_k_items
from hf_seqrec.models.modeling_gru4rec import GRU4Rec, GRU4RecConfig

_WIDTH, _USERS, _TOP_K = 64, 64, 10
_CLUSTER = 100
_EFFORTS = {"exact": [0], "ivf": [8, 32, 128], "hnsw": [32, 128, 512]}


def made_up(n_items: int) -> tuple[GRU4Rec, torch.Tensor]:
    """Make a model of clustered items, and states of users `(64, 64)`."""
    config = GRU4RecConfig(vocab_size=n_items + 1, hidden_size=_WIDTH)
    with transformers.initialization.no_init_weights():
        model = GRU4Rec(config)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(-(-n_items // _CLUSTER), _WIDTH, generator=generator)
    clusters = torch.randint(len(centres), (n_items,), generator=generator)
    items = centres[clusters] + 0.7 * torch.randn(n_items, _WIDTH, generator=generator)
    items *= torch.linspace(1.5, 0.75, n_items)[:, None]
    states = items[torch.randint(n_items, (_USERS,), generator=generator)]
    states = states + torch.randn(_USERS, _WIDTH, generator=generator) * states.std()
    with torch.no_grad():
        model.item_embeddings.weight[0] = 0
        model.item_embeddings.weight[1:] = items
    return model.eval(), states


def median_seconds(search: Any, rounds: int) -> float:
    """Time a call after a first one."""
    search()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@torch.inference_mode()
def measure(kind: str, n_items: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Measure one way over one catalog, at each of its efforts, in this process."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    model, states = made_up(n_items)
    items = model.item_embeddings.weight
    start = time.perf_counter()
    index = None if kind == "exact" else SearchIndex.build(model, kind)
    build_seconds = 0.0 if index is None else time.perf_counter() - start
    exact: torch.Tensor | None = None
    results = []
    for effort in _EFFORTS[kind]:

        def search(users: torch.Tensor, effort: int = effort) -> torch.Tensor:
            if index is None:
                return top_k_items(users, items, _TOP_K)[0]
            return index.search(users, _TOP_K, effort=effort)[0]

        one = median_seconds(lambda: search(states[:1]), rounds)
        many = median_seconds(lambda: search(states), rounds)
        found = search(states)
        exact = top_k_items(states, items, _TOP_K)[0] if exact is None else exact
        results.append(
            {
                "kind": kind,
                "n_items": n_items,
                "effort": effort,
                "ms_one_user": 1000 * one,
                "ms_per_user_of_64": 1000 * many / _USERS,
                "recall@10": recall(found, exact),
                "build_seconds": build_seconds,
                "index_bytes": 0 if index is None else faiss.serialize_index(index.faiss_index).nbytes,
            }
        )
    return results


def main() -> None:
    """Parse the command line, measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", choices=_EFFORTS, nargs="+", default=list(_EFFORTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, n_items = arguments.one.split(":")
        print(json.dumps(measure(kind, int(n_items), arguments.rounds, arguments.threads)))
        return
    results = []
    print("| items | | effort | ms, one user | ms a user, 64 at once | recall@10 | build, s | index, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for n_items in arguments.items:
        for kind in arguments.kinds:
            command = [sys.executable, __file__, "--one", f"{kind}:{n_items}", "--rounds", str(arguments.rounds)]
            command += ["--threads", str(arguments.threads)]
            for result in json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout):
                results.append(result)
                print(
                    f"| {n_items:,} | {kind} | {result['effort'] or ''} | {result['ms_one_user']:.2f} | "
                    f"{result['ms_per_user_of_64']:.2f} | {result['recall@10']:.3f} | {result['build_seconds']:.1f} | "
                    f"{result['index_bytes'] / 1e6:.0f} |",
                    flush=True,
                )
    if arguments.json:
        described = {
            "width": _WIDTH,
            "vectors": f"made up: Gaussian clusters of {_CLUSTER}",
            "threads": arguments.threads,
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "results": results,
        }
        arguments.json.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
