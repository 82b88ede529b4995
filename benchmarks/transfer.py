"""
What a model that was trained on other items is worth: fine-tune it on a new catalog, or train from scratch.

    python benchmarks/transfer.py --dataset data/ml-1m [--json transfer.json]

Of a dataset's items two random halves are drawn that overlap, and of its users two random parts that do not. A model
is pretrained on the first half's events of the first users, carried over to the second half (`adapt_to_catalog`), and
fine-tuned on the second half's events of the second users; beside it one from scratch, with the same steps, batches,
schedule and seed. Every run is evaluated after each epoch on the validation items of the second users, among all items
of the second half. Nothing that is evaluated was seen before: not the users, and of the items only that they exist.
`zero` is before any step. One row for each rule for new items, and one of `cooccurrence` with the encoder frozen.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import transformers
from transformers import AutoConfig, AutoModel, PrinterCallback, set_seed

import hf_seqrec
from hf_seqrec.checkpoints.adapt import adapt_to_catalog, freeze_encoder
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.leave_one_out import LeaveOneOut, leave_one_out
from hf_seqrec.data.sequences import Sequences, load_sequences
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments

_METRIC = "eval_ndcg@10"
# From random weights; from the pretrained ones with one of the rules for new items; with `cooccurrence`, frozen.
_STARTS = ("scratch", "cooccurrence", "mean", "frozen", "random")


def part_of(
    sequences: Sequences, users: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], min_events: int = 5
) -> Sequences:
    """Take the events that some users have of some items, without users who are left with few of them."""
    new_rows = np.zeros(sequences.catalog.vocab_size, dtype=np.int32)
    new_rows[rows] = np.arange(1, len(rows) + 1)
    histories = [found[found > 0] for user in users if len(found := new_rows[sequences.history(int(user))])]
    kept = [place for place, history in enumerate(histories) if len(history) >= min_events]
    item_rows = np.concatenate([histories[place] for place in kept])
    offsets = np.concatenate([[0], np.cumsum([len(histories[place]) for place in kept])]).astype(np.int64)
    counts = np.bincount(item_rows, minlength=len(rows) + 1)[1:]
    catalog = Catalog.from_items(sequences.catalog.item_ids.take(pa.array(rows - 1)), count=counts)
    return Sequences(item_rows, offsets, catalog, sequences.user_ids.take(pa.array(users[kept])))


def split_in_two(
    sequences: Sequences, overlap: float, pretrain_users: float, seed: int
) -> tuple[Sequences, Sequences]:
    """Draw two halves of the items, which share `overlap` of a half, and two parts of the users, which share none."""
    rng = np.random.default_rng(seed)
    half = sequences.n_items // 2
    # Two halves that share `overlap` leave as many items out.
    order = rng.permutation(np.arange(1, sequences.n_items + 1))
    begin = half - round(overlap * half)
    users = rng.permutation(sequences.n_users)
    n_first = round(pretrain_users * sequences.n_users)
    first, second = np.sort(order[:half]), np.sort(order[begin : begin + half])
    return part_of(sequences, users[:n_first], first), part_of(sequences, users[n_first:], second)


def train(
    arguments: argparse.Namespace, model: Any, cut: LeaveOneOut, catalog: Catalog, epochs: int, folder: str
) -> list[float]:
    """Train, and return validation NDCG@10 before the first and after each epoch."""
    args = SeqRecTrainingArguments(
        output_dir=folder,
        max_length=arguments.max_length,
        num_train_epochs=epochs,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch,
        lr_scheduler_type="constant",
        save_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=None,
        seed=arguments.seed,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    set_seed(arguments.seed)
    trainer = SeqRecTrainer(
        model=model, args=args, train_dataset=cut.train, eval_dataset=cut.validation, catalog=catalog
    )
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()[_METRIC]
    trainer.train()
    trainer.save_model()
    return [before, *(entry[_METRIC] for entry in trainer.state.log_history if _METRIC in entry and entry["step"])]


def fresh_model(arguments: argparse.Namespace, n_items: int) -> Any:
    """Make a model with random weights."""
    set_seed(arguments.seed)
    vocab_size = hf_seqrec.config_class(arguments.model).vocab_size_for(n_items)
    config = AutoConfig.for_model(
        arguments.model, vocab_size=vocab_size, hidden_size=arguments.width, num_hidden_layers=1
    )
    return AutoModel.from_config(config)


def measure(arguments: argparse.Namespace, folder: str) -> Iterator[dict[str, Any]]:
    """Pretrain once, then fine-tune from every start; yield what there is after each."""
    sequences = load_sequences(arguments.dataset)
    first, second = split_in_two(sequences, arguments.overlap, arguments.pretrain_users, arguments.seed)
    before, after = leave_one_out(first), leave_one_out(second)
    start = time.perf_counter()
    curve = train(
        arguments,
        fresh_model(arguments, first.n_items),
        before,
        first.catalog,
        arguments.pretrain_epochs,
        f"{folder}/first",
    )
    pretraining = {"curve": curve, "seconds": time.perf_counter() - start}
    print(f"Pretrained on {first}: validation NDCG@10 {curve[-1]:.4f}, {pretraining['seconds']:.0f} s", flush=True)

    result: dict[str, Any] = {
        "first": {"users": first.n_users, "items": first.n_items, "events": first.n_interactions},
        "second": {"users": second.n_users, "items": second.n_items, "events": second.n_interactions},
        "evaluated_users": len(after.validation),
        "pretraining": pretraining,
        "rows": [],
    }
    for name in arguments.starts:
        if name == "scratch":
            model = fresh_model(arguments, second.n_items)
        else:
            model, catalog = load_checkpoint(f"{folder}/first")
            rule = "cooccurrence" if name == "frozen" else name
            change = adapt_to_catalog(model, catalog, second.catalog, rule, histories=after.train, seed=arguments.seed)
            result |= {"known_items": change.n_known, "new_items": change.n_new}
            if name == "frozen":
                freeze_encoder(model)
        start = time.perf_counter()
        curve = train(arguments, model, after, second.catalog, arguments.epochs, f"{folder}/second")
        result["rows"].append({"start": name, "curve": curve, "seconds": time.perf_counter() - start})
        yield result


def print_table(result: dict[str, Any]) -> None:
    """Print NDCG@10 on validation before, after one epoch, at the best and at the last one."""
    known = f", of which the model knew {result['known_items']:,}" if "known_items" in result else ""
    print(f"{result['second']['users']:,} users, {result['second']['items']:,} items{known}")
    print(f"{'':18}{'zero':>9}{'1 epoch':>9}{'best':>9}{'end':>9}{'seconds':>9}")
    for row in result["rows"]:
        curve = row["curve"]
        shown = "".join(f"{value:>9.4f}" for value in (curve[0], curve[1], max(curve), curve[-1]))
        print(f"{row['start']:18}{shown}{row['seconds']:>9.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--dataset", required=True, help="A dataset folder, such as MovieLens-1M's.")
    parser.add_argument("--overlap", type=float, default=1 / 3, help="Share of the second half that is in the first.")
    parser.add_argument("--pretrain_users", type=float, default=0.7, help="Share of the users pretrained on.")
    parser.add_argument("--starts", nargs="+", choices=_STARTS, default=list(_STARTS), help="What to begin with.")
    parser.add_argument("--model", default="mamba4rec", choices=hf_seqrec.MODEL_TYPES)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--pretrain_epochs", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu_threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.cpu_threads)
    options = {name: value for name, value in vars(arguments).items() if name not in ("json", "dataset")}
    result: dict[str, Any] = {
        "dataset": Path(arguments.dataset).name,
        "options": options,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with tempfile.TemporaryDirectory(prefix="hf-seqrec-") as folder:
        for measured in measure(arguments, folder):
            result |= measured
            print(json.dumps(measured["rows"][-1]), file=sys.stderr)
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)


if __name__ == "__main__":
    main()
