"""
An epoch of training and of ranking the whole catalog: seconds, memory, what they are spent on, and the least possible.

    python benchmarks/epoch.py data/ml-1m [--models mamba4rec sasrec] [--train_on last_position] [--json epoch.json]

Each model, with the layers and heads of its defaults, trains for `--epochs` through the Trainer in a process of its
own, without evaluation or checkpoints; the first epoch warms up and the shortest of the others counts. Then validation
is ranked in batches of `--eval_batch`. Parts are shares of the processor's time in ten further steps. The floor is the
time that the step's matrix products and exponentials would take at the rates that this machine reaches, alone and on
the same threads: products of the step's width and type, exponentials as the softmax sums them, in a core's cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin take the processor from whoever works. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, TrainerCallback, set_seed

import hf_seqrec
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.models.op_exp_and_sum import exp_and_sum
from hf_seqrec.training.cpu_tuning import keep_freed_memory
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments

# Which operations are which part; the first that fits counts, with all that it calls.
_PARTS = {
    "softmax and loss": ("CatalogLoss",),
    "optimizer": ("Optimizer.step", "clip_grad"),
    "scan": ("numba_scan", "numba_scan_", "SelectiveScan"),
    "convolution": ("numba_conv", "conv1d"),
    "attention": ("scaled_dot_product", "bmm", "softmax"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::linear"),
    "dropout": ("random_", "bernoulli", "dropout", "Dropout"),
    "embedding": ("embedding", "index_put", "index_add"),
}


class _EpochSeconds(TrainerCallback):
    """Note how long each epoch takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.start)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and rank with one model; in a process of its own."""
    keep_freed_memory()  # as trainer/run.py does
    sequences = load_sequences(arguments.dataset)
    splits = leave_one_out(sequences)
    vocab_size = hf_seqrec.config_class(arguments.measure).vocab_size_for(sequences.catalog.n_items)
    config = AutoConfig.for_model(arguments.measure, vocab_size=vocab_size)
    if config.max_position_embeddings is not None:
        config.max_position_embeddings = arguments.max_length
    set_seed(0)
    model = AutoModel.from_config(config)
    epochs = _EpochSeconds()
    with tempfile.TemporaryDirectory() as folder:
        training = SeqRecTrainingArguments(
            folder,
            num_train_epochs=1 + arguments.epochs,
            per_device_train_batch_size=arguments.batch,
            per_device_eval_batch_size=arguments.eval_batch,
            max_length=arguments.max_length,
            train_on=arguments.train_on,
            eval_strategy="no",
            save_strategy="no",
            use_cpu=True,
            bf16=arguments.bf16,
            disable_tqdm=True,
            report_to="none",
        )
        # The Trainer and its arguments have a say in threads; ours is the last.
        torch.set_num_threads(arguments.threads)
        trainer = SeqRecTrainer(model, training, splits.train, splits.validation, callbacks=[epochs])
        trainer.train()
        before = time.perf_counter()
        trainer.evaluate()
        ranking = time.perf_counter() - before
        steps = trainer.state.max_steps // (1 + arguments.epochs)
        batches = [batch for batch, _ in zip(trainer.get_train_dataloader(), range(10), strict=False)]
        found = {
            "model": arguments.measure,
            "parameters": model.num_parameters(),
            "epoch_seconds": min(epochs.seconds[1:]),
            "steps": steps,
            "rank_seconds_per_batch": ranking / -(-len(splits.validation) // arguments.eval_batch),
            "peak_memory_bytes": _peak_memory(),
            "parts": parts(trainer, batches),
            "floor": floor(trainer, batches, steps),
        }
    return found


def one_step(trainer: SeqRecTrainer, batch: dict[str, torch.Tensor]) -> None:
    """Do what the Trainer does with a batch."""
    trainer.model.train()
    assert trainer.optimizer is not None
    with trainer.accelerator.autocast():
        loss = trainer.model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def parts(trainer: SeqRecTrainer, batches: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Return each part's share of the time of some steps."""
    one_step(trainer, batches[0])
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for batch in batches:
            one_step(trainer, batch)
    shares = dict.fromkeys([*_PARTS, "the rest"], 0.0)

    def add(event: Any, part: str | None) -> None:
        part = part or next(
            (name for name, words in _PARTS.items() if any(word in event.name for word in words)), None
        )
        shares[part or "the rest"] += event.self_cpu_time_total
        for child in event.cpu_children:
            add(child, part)

    for event in profiled.events():
        if event.cpu_parent is None:
            add(event, None)
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def floor(trainer: SeqRecTrainer, batches: list[dict[str, torch.Tensor]], steps: int) -> dict[str, float]:
    """Return how long an epoch's matrix products and exponentials would take at this machine's rates."""
    # The counter knows `addmm`, and not what the loss does in place.
    in_place = {torch.ops.aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        for batch in batches:
            one_step(trainer, batch)
    config, catalog = trainer.model.config, trainer.model.config.vocab_size
    positions = sum(int(batch["attention_mask"].sum()) for batch in batches)
    labels = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    exponentials = labels * catalog
    if hasattr(config, "state_size"):
        # Once in the forward pass, once more in the backward pass.
        exponentials += (
            2 * positions * config.num_hidden_layers * config.hidden_size * config.expand * config.state_size
        )
    scale = steps / len(batches)
    dtype = torch.bfloat16 if trainer.args.bf16 else torch.float32
    left, right = (torch.randn(2048, config.hidden_size).to(dtype) for _ in range(2))
    right, product = right.T, torch.empty(2048, 2048, dtype=dtype)
    seconds = fastest(lambda: torch.mm(left, right, out=product))
    flops = 2 * 2048 * 2048 * config.hidden_size / seconds
    numbers, shift = torch.zeros(512 * torch.get_num_threads(), 2**10), torch.zeros(512 * torch.get_num_threads())
    exponential = numbers.numel() / fastest(lambda: exp_and_sum(numbers, shift, keep=False))
    return {
        "flops": counter.get_total_flops() * scale,
        "flops_per_second": flops,
        "exponentials": exponentials * scale,
        "exponentials_per_second": exponential,
        "seconds": counter.get_total_flops() * scale / flops + exponentials * scale / exponential,
    }


def fastest(work: Callable[[], Any]) -> float:
    """Return the shortest of some runs, in seconds."""
    found = []
    for _ in range(50):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def _peak_memory() -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def print_table(result: dict[str, Any]) -> None:
    """Print what was found."""
    print(
        f"{result['dataset']}, histories of at most {result['max_length']}, batches of {result['batch']}, learning at "
        f"{result['train_on'] or 'every position'}, {result['threads']} thread(s)"
        f"{', bfloat16' if result['bf16'] else ''}"
    )
    print(f"{'':12}{'epoch':>10}{'step':>10}{'floor':>10}{'ranking a batch':>18}{'peak memory':>14}")
    for row in result["rows"]:
        memory = "-" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**30:.2f} GiB"
        print(
            f"{row['model']:12}{row['epoch_seconds']:>8.1f} s{1e3 * row['epoch_seconds'] / row['steps']:>7.0f} ms"
            f"{row['floor']['seconds']:>8.1f} s{1e3 * row['rank_seconds_per_batch']:>15.0f} ms{memory:>14}"
        )
        print(" " * 12 + ", ".join(f"{name} {share:.0%}" for name, share in row["parts"].items() if share >= 0.005))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("dataset", help="A dataset folder.")
    parser.add_argument(
        "--models", nargs="+", choices=hf_seqrec.MODEL_TYPES, default=["mamba4rec", "sasrec", "bert4rec"]
    )
    parser.add_argument("--train_on", choices=["every_position", "last_position"])
    parser.add_argument("--max_length", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--eval_batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="Matrix products in bfloat16, where the processor has it.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="Also write the result here.")
    parser.add_argument("--measure", choices=hf_seqrec.MODEL_TYPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    rows = []
    for model in arguments.models:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", model]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{model} ended with an error:\n{done.stderr}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    result = {
        "dataset": Path(arguments.dataset).name,
        **{
            name: getattr(arguments, name)
            for name in ("train_on", "max_length", "batch", "eval_batch", "threads", "bf16")
        },
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "rows": rows,
    }
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
