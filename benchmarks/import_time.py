"""
What `import hf_seqrec` adds to `import transformers`, and the first call of the scan in a new process.

    python benchmarks/import_time.py [--rounds 9] [--json import_time.json]

Each measurement is a process of its own, and a round has one of each. The first scan reads its kernels from numba's
cache, or compiles them, where the cache is a fresh folder.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_IMPORT = "import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
_SCAN = """
import time, torch
from hf_seqrec.models.op_selective_scan import selective_scan
x, delta, B = torch.randn(4, 8, 16), torch.rand(4, 8, 16), torch.randn(4, 8, 4)
A = -torch.ones(16, 4)
x.requires_grad_()
start = time.perf_counter()
selective_scan(x, delta, A, B, B)[0].sum().backward()
print(time.perf_counter() - start)
"""
# `from transformers import AutoModel` is what both need before anything can be loaded.
_CODES = {
    "import torch, transformers": _IMPORT.format(code="import torch, transformers"),
    "import torch, transformers, hf_seqrec": _IMPORT.format(code="import torch, transformers, hf_seqrec"),
    "first scan, forward and backward, cached": _SCAN,
    "first scan, forward and backward, no cache": _SCAN,
}


def seconds_of(code: str, cache: str | None) -> float:
    """Return what a new process prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="Also write the result here.")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in _CODES}
    for turn in range(arguments.rounds + 1):
        for name, code in _CODES.items():
            with tempfile.TemporaryDirectory() as empty:
                seconds = seconds_of(code, empty if name.endswith("no cache") else None)
            if turn > 0:
                found[name].append(seconds)
    rows = {name: {"seconds": statistics.median(times), "fastest": min(times)} for name, times in found.items()}
    plain, ours = list(rows.values())[:2]
    rows["added by hf_seqrec"] = {name: ours[name] - plain[name] for name in ours}
    print(f"{arguments.rounds} rounds, Python {platform.python_version()}, {os.cpu_count()} processors")
    for name, row in rows.items():
        print(f"{name:45}{row['seconds']:>8.3f} s (fastest {row['fastest']:.3f} s)")
    if arguments.json:
        packages = [name for name in ("torch", "transformers", "numba") if importlib.util.find_spec(name)]
        result = {
            "rounds": arguments.rounds,
            "processors": os.cpu_count(),
            "machine": platform.machine(),
            # Of the last 1, 5 and 15 minutes: above the number of processors, others were at work.
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
