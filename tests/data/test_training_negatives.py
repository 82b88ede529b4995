import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_seqrec.data.collators import ClozeCollator, NextItemCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.training_negatives import Law, NegativesCollator, check_negatives
from hf_seqrec.data.windows import every_prefix
from tests.helpers import walks

COUNTS = np.array([0, 50, 30, 0, 10, 5, 4, 1, 0])  # 8 items, two of them never seen
DISTRIBUTIONS = ["uniform", "popularity", "in_batch", "mixed"]


@pytest.fixture
def train(make_sequences):
    # Many users, all of whom have the items 1, 2, 2, 4 to train on; the catalog has 8.
    return leave_one_out(make_sequences(*[[1, 2, 2, 4, 5, 6]] * 2000, [7, 8, 1, 2])).train


def collator(distribution, n=3, **options):
    return NegativesCollator(
        NextItemCollator(10), n_items=8, n_negatives=n, distribution=distribution, item_counts=COUNTS, **options
    )


def law_of(distribution, alpha=1.0, counts=COUNTS):
    """What each row's probability should be, without any target left out."""
    uniform = np.array([0, *[1 / 8] * 8])
    popularity = counts**alpha * (counts > 0) / (counts**alpha * (counts > 0)).sum()
    return {"uniform": uniform, "popularity": popularity}[distribution]


def assert_drawn_from(drawn, law):
    """Counts are within 5 standard deviations of what the law says, and nothing else is drawn."""
    drawn = np.asarray(drawn).ravel()
    counts = np.bincount(drawn, minlength=len(law))
    spread = np.sqrt(len(drawn) * law * (1 - law))
    assert (np.abs(counts - len(drawn) * law) <= 5 * spread + 1e-9).all(), (counts, len(drawn) * law)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_each_position_draws_from_the_law_without_its_target(train, distribution, alpha):
    batch = collator(distribution, alpha=alpha, log_q=True, shared=False)(train.__getitems__(range(2000)))
    labels, negatives, log_q = batch["labels"], batch["negatives"], batch["negatives_log_q"]
    assert negatives.shape == log_q.shape == (2000, 3, 3)
    for position, label in enumerate((2, 2, 4)):
        assert (labels[:, position] == label).all()
        law = law_of(distribution, alpha).copy()
        law[label] = 0
        law /= law.sum()
        drawn = negatives[:, position]
        assert_drawn_from(drawn, law)
        np.testing.assert_allclose(log_q[:, position].exp(), law[drawn], rtol=1e-5)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_a_batch_draws_once_from_the_law(train, distribution):
    shared = collator(distribution, log_q=True, shared=True, alpha=1.0)
    batches = [shared(train.__getitems__([user])) for user in range(2000)]
    law = law_of(distribution)
    assert_drawn_from(torch.stack([batch["negatives"] for batch in batches]), law)
    for batch in batches[:50]:
        np.testing.assert_allclose(batch["negatives_log_q"].exp(), law[batch["negatives"]], rtol=1e-5)


def test_labels_of_the_batch(train):
    # Labels are 2, 2, 4: a position that asks for 2 has only 4 left, and the other way round.
    batch = collator("in_batch", n=4, shared=False)(train.__getitems__([0, 1]))
    others = {2: 4, 4: 2}
    assert batch["negatives"].tolist() == [[[others[label]] * 4 for label in row] for row in batch["labels"].tolist()]
    shared = collator("in_batch", n=4, log_q=True, shared=True)
    batches = [shared(train.__getitems__([user])) for user in range(2000)]
    assert_drawn_from(torch.stack([batch["negatives"] for batch in batches]), np.array([0, 0, 2 / 3, 0, 1 / 3]))
    # The probability is that of the item's popularity, whatever this batch has.
    popularity = law_of("popularity")
    np.testing.assert_allclose(batches[0]["negatives_log_q"].exp(), popularity[batches[0]["negatives"]], rtol=1e-5)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_after_the_last_item_alone(train, distribution):
    last = NextItemCollator(3, train_on="last_position")
    draw = NegativesCollator(last, 8, 3, distribution, COUNTS, alpha=1.0, log_q=True)
    batch = draw(train.__getitems__(range(2000)))
    assert (batch["labels"] == 4).all()
    assert batch["negatives"].shape == batch["negatives_log_q"].shape == (2000, 3)
    law = law_of(distribution).copy()
    law[4] = 0
    assert_drawn_from(batch["negatives"], law / law.sum())


def test_a_batch_with_a_single_item(make_sequences):
    train = leave_one_out(make_sequences([1, 3, 1, 2])).train
    assert collator("in_batch", n=2, shared=False)(train.__getitems__([0]))["negatives"].tolist() == [[[3, 3]]]


@pytest.mark.parametrize("shared", [False, True])
def test_half_uniform_and_half_from_the_batch(train, shared):
    # Five: three uniform, two from the batch.
    draw = collator("mixed", n=5, log_q=True, shared=shared)
    batches = [draw(train.__getitems__([user])) for user in range(2000)]
    negatives = torch.stack(
        [batch["negatives"].flatten(0, -2) if not shared else batch["negatives"] for batch in batches]
    )
    from_batch = {2, 4}
    assert set(negatives[..., 3:].unique().tolist()) == from_batch
    assert set(negatives[..., :3].unique().tolist()) == set(range(1, 9))
    popularity = law_of("popularity")
    for batch in batches[:20]:
        rows = batch["negatives"].numpy()
        if shared:
            q = 3 / 5 / 8 + 2 / 5 * popularity[rows]
        else:
            q = 3 / 5 / 7 + 2 / 5 * popularity[rows] / (1 - popularity[batch["labels"].numpy()])[..., None]
            # In the batch no row is its own target; none of the others either.
            assert (rows != batch["labels"].numpy()[..., None]).all()
        np.testing.assert_allclose(batch["negatives_log_q"].exp(), q, rtol=1e-5)


@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_never_a_special_row_nor_the_target(distribution, n):
    train = leave_one_out(walks(n_users=60, n_items=50)).train
    counts = train.item_counts()
    for seed in range(5):
        draw = NegativesCollator(ClozeCollator(10, mask_row=51), 50, n, distribution, counts, seed=seed)
        batch = draw(train.__getitems__(range(60)))
        negatives, labels = batch["negatives"], batch["labels"]
        if negatives.dim() == 1:
            assert negatives.shape == (40,)
            assert 1 <= negatives.min() <= negatives.max() <= 50
            continue
        assert negatives.shape == (*labels.shape, 3)
        asked = labels != -100
        assert 1 <= negatives[asked].min() <= negatives[asked].max() <= 50
        assert (negatives[asked] != labels[asked][:, None]).all()
        assert (negatives[~asked] == 0).all()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_workers_agree(distribution, workers):
    train = leave_one_out(walks()).train
    counts = train.item_counts()
    for n in (2, 11):
        draw = NegativesCollator(NextItemCollator(10), 12, n, distribution, counts, shared=n == 11, log_q=True)
        loader = DataLoader(train, batch_size=8, collate_fn=draw, num_workers=workers)
        for number, batch in enumerate(loader):
            expected = draw(train.__getitems__(range(8 * number, 8 * number + 8)))
            assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_draws_follow_from_seed_epoch_user_and_place():
    train = leave_one_out(walks()).train
    draw = NegativesCollator(NextItemCollator(10), 12, 4)

    def negatives(users, epoch=0, seed=0):
        train.set_epoch(epoch)
        draw.seed = seed
        return draw(train.__getitems__(users))["negatives"]

    first = negatives(range(8))
    # Whoever else is in the batch, and in which order; histories may be padded to another length.
    alone = negatives([5])
    assert torch.equal(alone[0], first[5, : alone.shape[1]])
    assert not torch.equal(negatives(range(8), epoch=1), first)
    assert not torch.equal(negatives(range(8), seed=1), first)
    assert torch.equal(negatives(range(8)), first)
    # Users, positions and draws are all different.
    flat = first[first > 0].float()
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.2
    # The prefixes of a history are as different from each other as users are.
    prefixes = every_prefix(train, 10)
    at_their_start = draw(prefixes.__getitems__(range(6)))["negatives"][:, 0]
    assert len({tuple(row) for row in at_their_start.tolist()}) == 6

    draw.shared = True
    shared = negatives(range(8))
    assert torch.equal(negatives(range(7, -1, -1)), shared)
    assert not torch.equal(negatives(range(1, 9)), shared)


def test_laws_are_exact_at_their_borders():
    law = Law.from_counts(np.array([2, 5, 9]), np.array([1, 2, 3]))
    every_point = (np.arange(6, dtype=np.uint64) << np.uint64(61)) // np.uint64(6) << np.uint64(3)
    every_point += np.uint64(2**40)
    assert law.draw(every_point, None).tolist() == [2, 5, 5, 9, 9, 9]
    for without, expected in ((2, {5, 9}), (5, {2, 9}), (9, {2, 5}), (1, {2, 5, 9}), (7, {2, 5, 9}), (10, {2, 5, 9})):
        ends = np.array([0, 2**64 - 1], dtype=np.uint64)
        drawn = law.draw(np.concatenate([every_point, ends]), np.array([without]))
        assert set(drawn.tolist()) == expected
    # Rare items keep their place.
    counts = np.array([0, 10**12, 1])
    assert Law.from_weights(np.arange(3), counts, 1.0).rows.tolist() == [1, 2]


def test_wrong_arguments(train):
    with pytest.raises(ValueError, match=r"at most the 7 items that are not the right one, got 8.*full_softmax"):
        collator("uniform", n=8)
    with pytest.raises(ValueError, match="`num_negatives` must be at least 1 with uniform negatives, got 0"):
        collator("uniform", n=0)
    with pytest.raises(ValueError, match="`num_negatives` must be at least 2 with mixed negatives, got 1"):
        check_negatives(1, "mixed")
    with pytest.raises(ValueError, match="must be one of uniform, popularity, in_batch, mixed, got 'hard'"):
        collator("hard")
    with pytest.raises(ValueError, match="`negatives_alpha` must be at least 0, got -1"):
        collator("popularity", alpha=-1)
    with pytest.raises(ValueError, match=r"`item_counts` must say how often.*for popularity negatives, got None"):
        NegativesCollator(NextItemCollator(10), 8, 3, "popularity")
    with pytest.raises(ValueError, match=r"must be 10 counts.*got shape \(9,\)"):
        NegativesCollator(NextItemCollator(10), 9, 3, "popularity", item_counts=COUNTS)
