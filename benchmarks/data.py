"""
From a log to a finished dataset folder: events a second and peak memory against the number of events.

    python benchmarks/data.py --events 1e7 3e7 1e8 --memory_limit 6GB [--folder /tmp/logs] [--json data.json]
    python benchmarks/data.py --events 1e6 --ml_1m ml-1m.inter --recbole_python recbole/bin/python

The logs are made up: a million users and items, both skewed, in the order of time, in one Parquet file. Each row is a
process of its own, from its start to the finished folder (imports, checks, catalog, card and picture included), and
its peak memory is the system's (`ru_maxrss`). pandas does what a script would: number the ids, sort by user and time,
collect lists, write Parquet. It keeps all in memory, so its rows end at `--pandas_up_to`. RecBole prepares
MovieLens-1M for sequential training with its own defaults, by the interpreter that has it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

OURS = """
import sys
from hf_seqrec.ingest.build import BuildArguments, build_dataset
build_dataset(sys.argv[1], sys.argv[2], build_arguments=BuildArguments(memory_limit=sys.argv[3]))
"""

PANDAS = """
import sys
import pandas as pd
log = pd.read_parquet(sys.argv[1])
counts = log["item_id"].value_counts()
rows = pd.Series(range(1, len(counts) + 1), index=counts.index)
log["row"] = log["item_id"].map(rows).astype("int32")
log = log.sort_values(["user_id", "timestamp"], kind="stable")
users = log.groupby("user_id", sort=False).agg(item_ids=("row", list), timestamps=("timestamp", list))
users.to_parquet(sys.argv[2])
"""

RECBOLE = """
import sys
import numpy as np
np.long = np.int64
from pathlib import Path
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
log = Path(sys.argv[1])
settings = {
    "data_path": str(log.parent.parent), "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 200, "train_neg_sample_args": None, "show_progress": False, "use_gpu": False,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
}
sys.argv = sys.argv[:1]
config = Config(model="SASRec", dataset=log.stem, config_dict=settings)
data_preparation(config, create_dataset(config))
"""

WITH_PEAK = """
import resource, runpy, sys, time
code = sys.argv.pop(1)
start = time.perf_counter()
exec(compile(code, "measured", "exec"))
print("MEASURED", time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def make_log(n_events: int, path: Path, users: int = 1_000_000, items: int = 1_000_000) -> None:
    """Write a log of skewed users and items in the order of time, a piece at a time."""
    rng = np.random.default_rng(0)
    schema = pa.schema({name: pa.int64() for name in ("user_id", "item_id", "timestamp")})
    with pq.ParquetWriter(path, schema) as file:
        for first in range(0, n_events, 5_000_000):
            n = min(5_000_000, n_events - first)
            # Ids far from 0..n - 1, and whose order says nothing about how popular they are.
            user = (users * rng.random(n) ** 1.5).astype(np.int64) * 7919 % 1_000_003
            item = (items * rng.random(n) ** 4).astype(np.int64) * 104729 % 1_000_003
            moment = 1_500_000_000 + (np.arange(first, first + n) * (3e8 / n_events)).astype(np.int64)
            columns = [user, item, moment + rng.integers(0, 3600, n)]
            file.write_table(pa.table(columns, schema=schema), row_group_size=1_000_000)


def measure(python: str, code: str, *arguments: str) -> tuple[float, int]:
    """Run code in a process of its own; return its seconds, imports included, and its peak memory in bytes."""
    command = [python, "-c", WITH_PEAK, code, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    _, seconds, peak = done.stdout.strip().splitlines()[-1].split()
    return float(seconds), int(peak)


def run(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure every row, the smallest logs first."""
    rows = []

    def add(what: str, n_events: int, python: str, code: str, *paths: str) -> None:
        seconds, peak = measure(python, code, *paths)
        rows.append({"what": what, "events": n_events, "seconds": seconds, "peak_bytes": peak})
        print_row(rows[-1])

    for n_events in map(int, arguments.events):
        log = folder / f"log-{n_events}.parquet"
        if not log.exists():
            make_log(n_events, log)
        add("hf_seqrec", n_events, sys.executable, OURS, str(log), str(folder / "out"), arguments.memory_limit)
        if n_events <= arguments.pandas_up_to:
            add("pandas", n_events, sys.executable, PANDAS, str(log), str(folder / "pandas.parquet"))
        if not arguments.keep:
            log.unlink()
    if arguments.ml_1m:
        n_events = sum(1 for _ in arguments.ml_1m.open("rb")) - 1
        paths = [str(arguments.ml_1m), str(folder / "ml"), arguments.memory_limit]
        for _ in range(arguments.rounds):
            add("hf_seqrec, ML-1M", n_events, sys.executable, OURS, *paths)
            if arguments.recbole_python:
                add("RecBole, ML-1M", n_events, arguments.recbole_python, RECBOLE, paths[0])
    return rows


def print_row(row: dict[str, Any]) -> None:
    """Print one measurement."""
    rate, gibibytes = row["events"] / row["seconds"] / 1e6, row["peak_bytes"] / 2**30
    counted = f"{row['what']:18}{row['events']:>13,} events{row['seconds']:>9.1f} s"
    print(f"{counted}{rate:>8.2f} million/s{gibibytes:>7.2f} GiB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--events", nargs="+", type=float, default=[1e7, 3e7, 1e8])
    parser.add_argument("--memory_limit", default="6GB", help="What DuckDB may take.")
    parser.add_argument("--pandas_up_to", type=float, default=3e7, help="Events of the largest log for pandas.")
    parser.add_argument("--ml_1m", type=Path, help="MovieLens-1M as ml-1m.inter, in a folder of the same name.")
    parser.add_argument("--recbole_python", help="Interpreter with RecBole.")
    parser.add_argument("--rounds", type=int, default=3, help="How often MovieLens-1M is prepared.")
    parser.add_argument("--folder", type=Path, help="Where logs and results go; a temporary one when left out.")
    parser.add_argument("--keep", action="store_true", help="Keep the logs in `--folder` for the next time.")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    started = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = run(arguments, folder)
    result = {
        "memory_limit": arguments.memory_limit,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "seconds_in_all": time.time() - started,
        "versions": _versions(),
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("duckdb", "ibis-framework", "pandas", "pyarrow")}


if __name__ == "__main__":
    main()
