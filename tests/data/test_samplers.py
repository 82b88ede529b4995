import numpy as np
import pytest

from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.samplers import LengthGroupedSampler, ShuffledSampler, padding_share


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.fixture
def lognormal(make_sequences):
    """A training view of 2,003 histories, most of them short and some very long."""
    lengths = np.random.default_rng(0).lognormal(3.0, 1.0, 2003).astype(int) + 2
    return leave_one_out(make_sequences(*[np.ones(length + 2, dtype=np.int32) for length in lengths])).train


@pytest.mark.parametrize("sampler_class", [ShuffledSampler, LengthGroupedSampler])
def test_an_order_depends_on_seed_and_epoch_only(lognormal, sampler_class):
    def sampler(seed):
        return sampler_class(lognormal, **({} if sampler_class is ShuffledSampler else sizes), seed=seed)

    sizes = {"batch_size": 32, "max_length": 100}
    assert order(sampler(0), 1) == order(sampler(0), 1)
    np.random.default_rng(7).random()
    assert sorted(order(sampler(0), 1)) == list(range(2003)) == list(range(len(sampler(0))))
    assert order(sampler(0), 1) != order(sampler(0), 2)
    assert order(sampler(0), 1) != order(sampler(1), 1)


def test_little_is_padding(lognormal):
    lengths = np.minimum(lognormal.stops - lognormal.starts, 200)
    shares = {}
    for name, sampler in (
        ("shuffled", ShuffledSampler(lognormal)),
        ("grouped", LengthGroupedSampler(lognormal, batch_size=32, max_length=199)),
    ):
        shares[name] = padding_share(lengths[order(sampler, 0)], 32)
    assert shares["shuffled"] > 0.7
    assert shares["grouped"] < 0.15


def test_batches_keep_together_whatever_the_epoch_and_are_mixed(lognormal):
    sampler = LengthGroupedSampler(lognormal, batch_size=32, max_length=199, pool_batches=10)
    batches = np.array(order(sampler, 0)[: 62 * 32]).reshape(62, 32)
    lengths = sampler.lengths[batches]
    # Batches of all lengths anywhere in the epoch.
    assert abs(np.corrcoef(lengths.mean(axis=1), np.arange(62))[0, 1]) < 0.4
    # Of 7 pools each has a batch of its shortest histories.
    assert (lengths.max(axis=1) <= 10).sum() >= 6
    # Other companions in the next epoch.
    again = np.array(order(sampler, 1)[: 62 * 32]).reshape(62, 32)
    together = [len(set(row) & set(other)) for row in batches.tolist() for other in again.tolist()]
    assert max(together) < 16


def test_padding_share_by_hand():
    # Two batches of 2 x 4 and 2 x 3 positions and one of 1 x 5; 17 of 19 are real.
    assert padding_share(np.array([4, 2, 3, 3, 5]), batch_size=2) == pytest.approx(2 / 19)


@pytest.mark.parametrize("name", ["batch_size", "pool_batches"])
def test_wrong_arguments(lognormal, name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        LengthGroupedSampler(lognormal, **({"batch_size": 4, "max_length": 10} | {name: 0}))
