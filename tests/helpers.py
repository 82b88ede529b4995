"""Small datasets and models for tests."""

import numpy as np
import pyarrow as pa
from transformers import set_seed

from hf_seqrec import Mamba4Rec, Mamba4RecConfig
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.sequences import Sequences


def sequences_of(*histories, n_items=None):
    """Make a dataset of the given histories (lists of catalog rows)."""
    n_items = n_items or max(max(history) for history in histories)
    return Sequences(
        item_rows=np.concatenate([np.asarray(history, dtype=np.int32) for history in histories]),
        offsets=np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        catalog=Catalog.from_items(
            [f"id-{row}" for row in range(1, n_items + 1)],
            title=[f"Item {row}" for row in range(1, n_items + 1)],
        ),
        user_ids=pa.array([f"user-{user}" for user in range(len(histories))]),
    )


def walks(n_users=40, n_items=12, seed=0):
    """Make histories of 5 to 20 items in which each item is mostly followed by the next one: easy to learn."""
    generator = np.random.default_rng(seed)
    histories = []
    for _ in range(n_users):
        steps = generator.choice([1, 2], p=[0.9, 0.1], size=generator.integers(5, 21))
        histories.append((generator.integers(n_items) + np.cumsum(steps)) % n_items + 1)
    return sequences_of(*histories, n_items=n_items)


def small_model(vocab_size, **fields):
    """Make a seeded Mamba4Rec of 16 channels."""
    set_seed(0)
    return Mamba4Rec(Mamba4RecConfig(vocab_size=vocab_size, hidden_size=16, state_size=4, **fields))
