import numpy as np
import pytest
import torch

from hf_seqrec.data.histories import HistoryDataset
from tests.helpers import sequences_of


@pytest.fixture
def train_view():
    """Make a training view of whole histories (lists of catalog rows)."""

    def make(*histories, n_items=None):
        sequences = sequences_of(*histories, n_items=n_items)
        users = np.arange(len(histories))
        # Without targets, `stops` may point behind the last event.
        return HistoryDataset(sequences, users, sequences.offsets[:-1], sequences.offsets[1:], has_targets=False)

    return make


@pytest.fixture
def random_histories():
    """Make histories of 1 to 15 events out of few items, so that pairs and repeats are common."""

    def make(seed, n_users=30, n_items=12):
        generator = np.random.default_rng(seed)
        return [generator.integers(1, n_items + 1, size=generator.integers(1, 16)).tolist() for _ in range(n_users)]

    return make


@pytest.fixture
def score():
    """Score the catalog after some histories, as a NumPy array without the padding row."""

    def scores(baseline, *histories):
        length = max(map(len, histories))
        batch = {"input_ids": torch.tensor([history + [0] * (length - len(history)) for history in histories])}
        found = baseline.scores(batch)
        assert torch.isneginf(found[:, 0]).all()
        return found[:, 1:].numpy()

    return scores
