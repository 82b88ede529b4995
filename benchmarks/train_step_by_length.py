"""
One training step against the length of the history: ours, and what a user would pick instead.

    python benchmarks/train_step_by_length.py [--lengths 50 200 1000 2000 5000] [--loss_at last_position]
        [--ways mamba4rec sasrec] [--recbole_python PYTHON] [--rectools_python PYTHON] [--json FILE] [--picture FILE]

Full histories, `--positions` of them in all in every batch, whatever the length; float32, AdamW, dropout .2, width 64,
a full softmax over `--items`. Mamba4Rec has one layer and SASRec two, as in the papers; `sasrec` takes PyTorch's
`scaled_dot_product_attention`, `sasrec_eager` the matrix of all pairs. `transformers_mamba` is transformers' own, of
the same sizes, as it runs without CUDA kernels; RecBole's and RecTools' SASRec have two layers as well and the
interpreters that they are installed for. RecBole learns at the last position only, RecTools at every one.

Each measurement is a process of its own, and a round has one of each way, so that a busy machine is unfair to none:
one step to warm up, then `--repeats`, the shortest of which counts, and the median over the rounds. Memory is the
highest of the process over what it had with model and batch in place (Linux only).
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

# Other interpreters run this file too, and have nothing of ours: torch is all that is imported up here.
import torch

# A step that takes longer is not repeated, nor taken in more than one round.
_SLOW_SECONDS = 30.0

Step = Callable[[], torch.Tensor]


def of_package(model_type: str, attention: str | None = None) -> Callable[[argparse.Namespace], tuple[Any, Step]]:
    """A model of this package, with its own defaults but for dropout."""

    def make(arguments: argparse.Namespace) -> tuple[Any, Step]:
        from transformers import AutoConfig, AutoModel

        import hf_seqrec

        vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(arguments.items)
        config = AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_dropout_prob=0.2)
        if config.max_position_embeddings is not None:
            config.max_position_embeddings = arguments.length
        model = AutoModel.from_config(config, attn_implementation=attention)
        history, labels = histories(arguments)
        if arguments.loss_at == "every_position":
            labels = torch.cat([history[:, 1:], labels[:, None]], dim=1)
        return model, lambda: model(input_ids=history, labels=labels).loss

    return make


def transformers_mamba(arguments: argparse.Namespace) -> tuple[Any, Step]:
    """The language model with the sizes of a recommender; it learns at every position unless its last is cut out."""
    from transformers import MambaConfig, MambaModel, logging

    logging.set_verbosity_error()  # It warns that this is slow.
    config = MambaConfig(vocab_size=arguments.items + 1, hidden_size=64, num_hidden_layers=1, state_size=32)
    model = MambaModel(config)
    history, target = histories(arguments)

    def step() -> torch.Tensor:
        states = model(history, use_cache=False).last_hidden_state
        if arguments.loss_at == "last_position":
            states, labels = states[:, -1], target
        else:
            labels = torch.cat([history[:, 1:], target[:, None]], dim=1).flatten()
        scores = states.flatten(0, -2) @ model.get_input_embeddings().weight.T
        return torch.nn.functional.cross_entropy(scores, labels)

    return model, step


def recbole_sasrec(arguments: argparse.Namespace) -> tuple[Any, Step]:
    """RecBole's model, told by hand what its data loading would tell it."""
    import numpy as np

    np.long = np.int64  # RecBole 1.2.1 asks for it; numpy 2 has it no more
    from recbole.model.sequential_recommender import SASRec

    class Items:
        def num(self, field: str) -> int:
            return arguments.items + 1

    settings = {
        **{"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_"},
        **{"ITEM_LIST_LENGTH_FIELD": "length", "MAX_ITEM_LIST_LENGTH": arguments.length, "device": "cpu"},
        **{"n_layers": 2, "n_heads": 1, "hidden_size": 64, "inner_size": 64, "hidden_act": "relu"},
        **{"hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "layer_norm_eps": 1e-12},
        **{"initializer_range": 0.02, "loss_type": "CE"},
    }
    model = SASRec(settings, Items())
    history, target = histories(arguments)
    batch = {"item_list": history, "length": torch.full((len(history),), arguments.length), "item": target}
    return model, lambda: model.calculate_loss(batch)


def rectools_sasrec(arguments: argparse.Namespace) -> tuple[Any, Step]:
    """RecTools' model and its own batch."""
    import pandas as pd
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    history, target = histories(arguments)
    rows = torch.cat([history, target[:, None]], dim=1)
    n_users, n_events = rows.shape
    # One more user has every item, so that the catalog is complete.
    events = pd.DataFrame(
        {
            "user_id": [user for user in range(n_users) for _ in range(n_events)] + [n_users] * arguments.items,
            "item_id": [*rows.flatten().tolist(), *range(1, arguments.items + 1)],
            "weight": 1.0,
            "datetime": pd.date_range("2020-01-01", periods=n_users * n_events + arguments.items, freq="s"),
        }
    )
    sizes = {"n_blocks": 2, "n_heads": 1, "n_factors": 64, "session_max_len": arguments.length}
    recommender = SASRecModel(**sizes, dropout_rate=0.2, loss="softmax", batch_size=n_users)
    recommender._build_model_from_dataset(Dataset.construct(events))
    batch = next(iter(recommender.data_preparator.get_dataloader_train()))
    module = recommender.lightning_model
    module.log = lambda *args, **options: None  # there is no Lightning trainer to log to
    return module, lambda: module.training_step(batch, 0)


WAYS: dict[str, Callable[[argparse.Namespace], tuple[Any, Step]]] = {
    **{
        name: of_package(name)
        for name in ("mamba4rec", "recmamba", "mambarec", "moematrrec", "mlsa4rec", "gru4rec", "sasrec")
    },
    "sasrec_eager": of_package("sasrec", "eager"),
    "transformers_mamba": transformers_mamba,
    "recbole_sasrec": recbole_sasrec,
    "rectools_sasrec": rectools_sasrec,
}
_ONLY_AT = {"recbole_sasrec": "last_position", "rectools_sasrec": "every_position"}


def histories(arguments: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Make up full histories `(b, l)` and the items after them `(b,)`."""
    rows = torch.randint(1, arguments.items + 1, (max(1, arguments.positions // arguments.length), arguments.length))
    return rows, rows[:, 0].flip(0)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and weigh one way at one length; in a process of its own."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, loss_of = WAYS[arguments.measure](arguments)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    can_weigh = Path("/proc/self/clear_refs").exists()
    if can_weigh:
        Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident size on record
        before = _status("VmRSS")
    seconds: list[float] = []
    for _ in range(1 + arguments.repeats):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > _SLOW_SECONDS:
            break
    return {
        "seconds": min(seconds[1:] or seconds),
        "memory_bytes": (_status("VmHWM") - before) * 1024 if can_weigh else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "positions": max(1, arguments.positions // arguments.length) * arguments.length,
        "torch": torch.__version__,
    }


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every way at every length, in interleaved rounds."""
    from tqdm import tqdm

    interpreters = {"recbole_sasrec": arguments.recbole_python, "rectools_sasrec": arguments.rectools_python}
    ways = [
        way
        for way in arguments.ways
        if interpreters.get(way, sys.executable) and _ONLY_AT.get(way, arguments.loss_at) == arguments.loss_at
    ]
    pairs = [(length, way) for length in arguments.lengths for way in ways]
    pairs = [(length, way) for length, way in pairs if way != "transformers_mamba" or length <= arguments.slow_up_to]
    found: dict[tuple[int, str], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for turn in range(arguments.rounds):
        for length, way in tqdm(pairs, desc=f"Round {turn + 1} of {arguments.rounds}"):
            if turn and found[length, way][0]["seconds"] > _SLOW_SECONDS:
                continue
            options = {"measure": way, "lengths": length, "loss_at": arguments.loss_at, "items": arguments.items}
            options |= {"positions": arguments.positions, "threads": arguments.threads, "repeats": arguments.repeats}
            command = [interpreters.get(way) or sys.executable, __file__]
            command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{way} at length {length} ended with an error:\n{done.stderr}")
            found[length, way].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for (length, way), measured in found.items():
        row = {"length": length, "way": way, **measured[0], "rounds": len(measured)}
        row["seconds"] = statistics.median(one["seconds"] for one in measured)
        row["fastest"] = min(one["seconds"] for one in measured)
        rows.append(row)
    return {
        "loss_at": arguments.loss_at,
        "items": arguments.items,
        "threads": arguments.threads,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "rows": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what `run` found."""
    of_mamba = {row["length"]: row for row in result["rows"] if row["way"] == "mamba4rec"}
    print(f"Training step, loss at {result['loss_at']}, {result['items']:,} items, {result['threads']} thread(s)")
    print(f"{'length':>8}  {'way':20}{'seconds':>10}{'positions/s':>14}{'to mamba4rec':>14}{'memory, MiB':>14}")
    for row in result["rows"]:
        ratio = f"{row['seconds'] / of_mamba[row['length']]['seconds']:.2f}x" if row["length"] in of_mamba else ""
        memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:,.0f}"
        print(
            f"{row['length']:>8,}  {row['way']:20}{row['seconds']:>10.3f}{row['positions'] / row['seconds']:>14,.0f}"
            f"{ratio:>14}{memory:>14}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000, 2000, 5000])
    parser.add_argument("--loss_at", choices=["last_position", "every_position"], default="last_position")
    default_ways = ["mamba4rec", "sasrec", "sasrec_eager", "transformers_mamba", "recbole_sasrec", "rectools_sasrec"]
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=default_ways)
    parser.add_argument("--positions", type=int, default=12_800, help="Of all histories of a batch together.")
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow_up_to", type=int, default=200, help="Longest histories for `transformers_mamba`.")
    parser.add_argument("--recbole_python", help="Interpreter with RecBole; its row is left out otherwise.")
    parser.add_argument("--rectools_python", help="Interpreter with RecTools; its row is left out otherwise.")
    parser.add_argument("--json", type=Path, help="Also write the result here.")
    parser.add_argument("--picture", type=Path, help="Also draw it, as a .png or .svg.")
    parser.add_argument("--measure", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        arguments.length = arguments.lengths[0]
        print(json.dumps(measure(arguments)))
        return
    result = run(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.picture:
        # Only here: other interpreters run this file too, and may have no matplotlib.
        from picture import draw_by_length

        title = f"A training step, loss at {result['loss_at'].replace('_', ' ')}, {result['threads']} thread(s)"
        draw_by_length(result["rows"], title, arguments.picture)


if __name__ == "__main__":
    main()
