import numpy as np
import pytest
from torch.utils.data import DataLoader

from hf_seqrec.data.histories import HistoryBatch
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.samplers import ShuffledSampler
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.synthetic import build_synthetic


def histories(view):
    return {int(user): view.history(index).tolist() for index, user in enumerate(view.users)}


def test_what_is_held_out(make_sequences):
    # Users with 1, 2, 3, 4 and 5 events.
    sequences = make_sequences([9], [1, 2], [3, 4, 5], [1, 2, 3, 4], [5, 4, 3, 2, 1])
    train, validation, test, n_skipped, n_not_evaluated = leave_one_out(sequences)
    # User 2 has one event left to train on, so no pair.
    assert histories(train) == {1: [1, 2], 3: [1, 2], 4: [5, 4, 3]}
    assert histories(validation) == {2: [3], 3: [1, 2], 4: [5, 4, 3]}
    assert validation.targets.tolist() == [4, 3, 2]
    assert histories(test) == {2: [3, 4], 3: [1, 2, 3], 4: [5, 4, 3, 2]}
    assert test.targets.tolist() == [5, 4, 1]
    assert train.targets is None
    assert (n_skipped, n_not_evaluated) == (2, 2)


@pytest.mark.parametrize("histories", [([1], [2]), ([1, 2], [2, 1]), ([1, 2, 3],)])
def test_nothing_to_train_on_or_evaluate(make_sequences, histories):
    with pytest.raises(ValueError, match="at least 3 events to evaluate"):
        leave_one_out(make_sequences(*histories))


def test_a_batch_is_fetched_as_one_record(make_sequences):
    sequences = make_sequences([1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6])
    test = leave_one_out(sequences).test
    (batch,) = test.__getitems__([2, 0])
    assert batch.item_rows is sequences.item_rows
    assert (batch.starts.tolist(), batch.stops.tolist()) == ([8, 0], [11, 3])
    assert (batch.targets.tolist(), batch.users.tolist()) == ([6, 4], [2, 0])
    joined = HistoryBatch.join([test[2], test[0]])
    for name in ("starts", "stops", "targets", "users"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(batch, name))
    (fetched,) = next(iter(DataLoader(test, batch_size=2, sampler=[2, 0], collate_fn=list)))
    np.testing.assert_array_equal(fetched.starts, batch.starts)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_epoch_reaches_the_batch(make_sequences, workers):
    train = leave_one_out(make_sequences(*[[1, 2, 3, 4]] * 4)).train
    sampler = ShuffledSampler(train, seed=3)
    loader = DataLoader(
        train, batch_size=2, sampler=sampler, collate_fn=list, num_workers=workers, persistent_workers=bool(workers)
    )
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        assert [batch.epoch for (batch,) in loader] == [epoch, epoch]


def test_accelerate_passes_the_epoch_on(make_sequences):
    from accelerate import Accelerator, skip_first_batches

    train = leave_one_out(make_sequences(*[[1, 2, 3, 4]] * 8)).train
    loader = DataLoader(train, batch_size=2, sampler=ShuffledSampler(train), collate_fn=collate_epochs)
    prepared = Accelerator(cpu=True).prepare(loader)
    prepared.set_epoch(5)
    assert [batch["epoch"].item() for batch in prepared] == [5] * 4
    # As when a run is resumed in the middle of epoch 6.
    skipping = skip_first_batches(prepared, 3)
    skipping.set_epoch(6)
    assert [batch["epoch"].item() for batch in skipping] == [6]


def collate_epochs(examples):
    import torch

    return {"epoch": torch.tensor(examples[0].epoch)}


def test_a_dataset_folder(tmp_path):
    build_synthetic(tmp_path / "data")
    expected = leave_one_out(load_sequences(tmp_path / "data"))
    assert leave_one_out(tmp_path / "data").train.fingerprint() == expected.train.fingerprint()
    assert len(leave_one_out(str(tmp_path / "data")).test) == len(expected.test)
