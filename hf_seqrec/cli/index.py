"""
Build an approximate search index beside a checkpoint, and measure how much of the exact top 10 it finds.

    hf-seqrec index runs/my-shop --kind hnsw

Needs the extra `ann` (FAISS).
"""

import time
from collections.abc import Sequence

import torch

from ..argument_parser import CommandParser
from ..checkpoints.load import load_checkpoint
from ..inference.search_index import KINDS, SearchIndex, history_states, recall
from ..models.item_scores import top_k_items


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, build an index, save it and say what it finds."""
    parser = CommandParser("hf-seqrec index", __doc__ or "")
    parser.add_argument("checkpoint", help="A checkpoint folder; the index is written into it.")
    parser.add_argument("--kind", choices=KINDS, default="hnsw", help="Kind of index.")
    parser.add_argument("--effort", type=int, default=64, help="Search effort used when measuring recall.")
    arguments = parser.parse_args(command_line)
    model, catalog = load_checkpoint(arguments.checkpoint)
    start = time.perf_counter()
    index = SearchIndex.build(model, arguments.kind)
    seconds = time.perf_counter() - start
    path = index.save(arguments.checkpoint)
    # Histories of random items: what is measured is the search, not the model.
    generator = torch.Generator().manual_seed(0)
    histories = torch.randint(1, catalog.n_items + 1, (256, 20), generator=generator)
    states, _ = history_states(model, histories)
    items, bias = model.output_items()
    top_k = min(10, catalog.n_items)
    exact, _ = top_k_items(states, items.detach(), top_k, bias)
    found = recall(index.search(states, top_k, effort=arguments.effort)[0], exact)
    print(
        f"{path}: {arguments.kind} of {catalog.n_items:,} items, built in {seconds:.1f} s, "
        f"{path.stat().st_size / 1e6:.1f} MB; recall@{top_k} {found:.3f} at effort {arguments.effort}."
    )
