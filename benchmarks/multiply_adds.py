"""
Where Mamba4Rec becomes cheaper than SASRec, by counting: multiply-adds of the encoder for one position, going forward.

    python benchmarks/multiply_adds.py [--lengths 50 200 1000 2000 5000] [--loss_at last_position]
        [--json multiply_adds.json]

Models with their own defaults, which leave out what a question about the last position alone does not ask for. Matrix
products are those that PyTorch counts while the model runs, those of attention
(scores and weighted sums of all pairs, with `attn_implementation="eager"`) among them. The scan and the convolution
are no matrix products and counted here: each channel and state multiplies for the decay and for what is written, and
multiplies and adds for the state and for what is read; the convolution has one multiply-add for each tap. Exponentials
are the scan's, one for each channel and state, and the softmax's, one for each pair. Nothing is timed.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

import hf_seqrec

# Of a channel and state at a position: delta * A, (delta * x) * B, decay * state + written, y + C * state.
_SCAN_MULTIPLY_ADDS = 4


def count(model_type: str, length: int, only_last: bool) -> dict[str, Any]:
    """Count for one position of a full history: a share of what is done for all."""
    config = AutoConfig.for_model(model_type, vocab_size=hf_seqrec.config_class(model_type).vocab_size_for(100))
    has_attention = config.max_position_embeddings is not None
    if has_attention:
        config.max_position_embeddings = length
    model = AutoModel.from_config(config, attn_implementation="eager" if has_attention else None).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.ones(1, length, dtype=torch.long), output_logits=False, only_last=only_last)
    operations = {operation: flops // 2 // length for operation, flops in counter.get_flop_counts()["Global"].items()}
    attention = scan = convolution = 0
    if has_attention:
        attention = operations.pop(torch.ops.aten.bmm)
        exponentials = config.num_hidden_layers * config.num_attention_heads * length
    else:
        channels = config.num_hidden_layers * config.expand * config.hidden_size
        scan = _SCAN_MULTIPLY_ADDS * channels * config.state_size
        convolution = channels * config.conv_kernel
        exponentials = channels * config.state_size
    matrices = sum(operations.values())
    return {
        "model": model_type,
        "length": length,
        "layers": config.num_hidden_layers,
        "matrices": matrices,
        "attention": attention,
        "scan": scan,
        "convolution": convolution,
        "multiply_adds": matrices + attention + scan + convolution,
        "exponentials": exponentials,
    }


def crossover(rows: list[dict[str, Any]]) -> float | None:
    """Return the length at which both models have as many multiply-adds, between two lengths that were counted."""
    more = [(row["length"], row["multiply_adds"]) for row in rows if row["model"] == "sasrec"]
    less = [row["multiply_adds"] for row in rows if row["model"] == "mamba4rec"]
    ahead = [(length, by_sasrec - by_mamba) for (length, by_sasrec), by_mamba in zip(more, less, strict=True)]
    for (length, before), (next_length, after) in pairwise(ahead):
        if before <= 0 < after:
            return length + (next_length - length) * before / (before - after)
    return None


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000, 2000, 5000])
    parser.add_argument("--loss_at", choices=["last_position", "every_position"], default="last_position")
    parser.add_argument("--json", type=Path, help="Also write the result here.")
    arguments = parser.parse_args()
    only_last = arguments.loss_at == "last_position"
    rows = [
        count(model_type, length, only_last) for length in arguments.lengths for model_type in ("mamba4rec", "sasrec")
    ]
    names = ("matrices", "attention", "scan", "convolution", "multiply_adds", "exponentials")
    print(f"{'length':>8}  {'model':10}{'layers':>8}" + "".join(f"{name:>15}" for name in names) + f"{'ratio':>8}")
    for mamba, row in ((rows[index // 2 * 2], row) for index, row in enumerate(rows)):
        numbers = "".join(f"{row[name]:>15,}" for name in names)
        ratio = row["multiply_adds"] / mamba["multiply_adds"]
        print(f"{row['length']:>8,}  {row['model']:10}{row['layers']:>8}{numbers}{ratio:>7.2f}x")
    crosses = crossover(rows)
    print("They do not cross." if crosses is None else f"As many multiply-adds at length {crosses:.0f}.")
    if arguments.json:
        result = {"loss_at": arguments.loss_at, "torch": torch.__version__, "crossover": crosses, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
