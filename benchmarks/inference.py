"""
Recommending to many users at once from their whole histories: every model, by the length of the histories.

    python benchmarks/inference.py [--models mamba4rec sasrec] [--lengths 50 200 1000] [--threads 1]
        [--recbole_python PYTHON] [--json FILE] [--picture FILE]

Full histories, `--batch` users at a time, fewer where they have more than `--positions` items together; width 64, each
model with the layers and heads of its defaults and random weights, which take as long as trained ones. Asked for are
the ten best of `--items` that are not in the history: for ours `model.recommend`, for RecBole's SASRec (where an
interpreter that has it is named) `full_sort_predict`, the history masked, and `topk`.

Each measurement is a process of its own, and a round has one of each way, so that a busy machine is unfair to none:
one call to warm up, then `--repeats`, the shortest of which counts, and the median over the rounds. Memory is the
highest of the process over what it had with model and batch in place (Linux only).

One user who does one thing more is another question, for which most models carry a state: `live_session.py`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin take the processor from whoever works. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# RecBole's interpreter runs this file too, and has nothing of ours: torch is all that is imported up here.
import torch

MODELS = ("mamba4rec", "recmamba", "mambarec", "moematrrec", "mlsa4rec", "gru4rec", "sasrec", "bert4rec")
_RECBOLE = "recbole_sasrec"
_TOP_K = 10

Recommend = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def of_package(model_type: str, length: int, n_items: int) -> tuple[Any, Recommend]:
    """Return a model with its own defaults, and what it is asked."""
    from transformers import AutoConfig, AutoModel

    import hf_seqrec

    config = AutoConfig.for_model(model_type, vocab_size=hf_seqrec.config_class(model_type).vocab_size_for(n_items))
    if config.max_position_embeddings is not None:
        config.max_position_embeddings = length
    model = AutoModel.from_config(config)
    return model, lambda histories: model.recommend(histories, top_k=_TOP_K)


def recbole_sasrec(length: int, n_items: int) -> tuple[Any, Recommend]:
    """Return RecBole's model, and the ten best of its scores that are not in the history."""
    import train_step_by_length

    model, _ = train_step_by_length.recbole_sasrec(argparse.Namespace(items=n_items, length=length, positions=length))

    def recommend(histories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = model.full_sort_predict(
            {"item_list": histories, "length": torch.full((len(histories),), histories.shape[1])}
        )
        scores[:, 0] = -torch.inf
        scores.scatter_(1, histories, -torch.inf)
        best, rows = scores.topk(_TOP_K)
        return rows, best

    return model, recommend


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and weigh one way at one length; in a process of its own."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    length = arguments.lengths[0]
    users = max(1, min(arguments.batch, arguments.positions // length))
    histories = torch.randint(1, arguments.items + 1, (users, length))
    if arguments.measure == _RECBOLE:
        model, recommend = recbole_sasrec(length, arguments.items)
    else:
        model, recommend = of_package(arguments.measure, length, arguments.items)
    model.eval()
    # Libraries load and kernels compile; one user leaves little memory behind that could be used again.
    with torch.inference_mode():
        recommend(histories[:1])
    can_weigh = Path("/proc/self/clear_refs").exists()
    if can_weigh:
        Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident size on record
        before = _status("VmRSS")
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(1 + arguments.repeats):
            start = time.perf_counter()
            recommend(histories)
            seconds.append(time.perf_counter() - start)
    return {
        "users": users,
        "positions": users * length,
        "seconds": min(seconds[1:]),
        "memory_bytes": (_status("VmHWM") - before) * 1024 if can_weigh else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
    }


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every way at every length, in interleaved rounds."""
    from tqdm import tqdm

    ways = [*arguments.models, *([_RECBOLE] if arguments.recbole_python else [])]
    pairs = [(length, way) for length in arguments.lengths for way in ways]
    found: dict[tuple[int, str], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    names = ("batch", "positions", "items", "threads", "repeats")
    options = [word for name in names for word in (f"--{name}", str(getattr(arguments, name)))]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    for turn in range(arguments.rounds):
        for length, way in tqdm(pairs, desc=f"Round {turn + 1} of {arguments.rounds}"):
            interpreter = arguments.recbole_python if way == _RECBOLE else sys.executable
            command = [interpreter, __file__, *options, "--lengths", str(length), "--measure", way]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{way} at length {length} ended with an error:\n{done.stderr}")
            found[length, way].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for (length, way), measured in found.items():
        seconds = [one["seconds"] for one in measured]
        row = {"length": length, "way": way, **measured[0], "rounds": len(measured)}
        row |= {"seconds": statistics.median(seconds), "fastest": min(seconds)}
        rows.append(row | {"users_per_second": row["users"] / row["seconds"]})
    return {
        "items": arguments.items,
        "top_k": _TOP_K,
        "threads": arguments.threads,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        # Of the last 1, 5 and 15 minutes: above the number of processors, others were at work.
        "load_average": os.getloadavg(),
        "rows": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what `run` found."""
    print(f"Ten of {result['items']:,} items, history excluded, float32, {result['threads']} thread(s)")
    print(f"{'length':>8}  {'way':16}{'users':>8}{'seconds':>10}{'users/s':>12}{'positions/s':>14}{'memory, MiB':>14}")
    for row in result["rows"]:
        memory = "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:,.0f}"
        print(
            f"{row['length']:>8,}  {row['way']:16}{row['users']:>8}{row['seconds']:>10.3f}"
            f"{row['users_per_second']:>12,.0f}{row['positions'] / row['seconds']:>14,.0f}{memory:>14}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--batch", type=int, default=256, help="Users at a time.")
    parser.add_argument("--positions", type=int, default=65_536, help="Of all histories of a batch together, at most.")
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recbole_python", help="Interpreter with RecBole; its row is left out otherwise.")
    parser.add_argument("--json", type=Path, help="Also write the result here.")
    parser.add_argument("--picture", type=Path, help="Also draw it, as a .png or .svg.")
    parser.add_argument("--measure", choices=(*MODELS, _RECBOLE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    result = run(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.picture:
        from picture import draw_by_length

        title = f"Recommending to many users at once, {result['threads']} thread(s)"
        draw_by_length(result["rows"], title, arguments.picture)


if __name__ == "__main__":
    main()
