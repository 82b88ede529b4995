from types import SimpleNamespace

import pytest

from hf_seqrec import BERT4RecConfig, Mamba4RecConfig, MLSA4RecConfig
from hf_seqrec.data.collators import ClozeCollator, NextItemCollator, RankingCollator
from hf_seqrec.data.objectives import collators_for


def test_next_item():
    training, ranking = collators_for(Mamba4RecConfig(), max_length=30, window="random", seed=3)
    assert isinstance(training, NextItemCollator)
    assert isinstance(ranking, RankingCollator)
    assert (training.max_length, training.window, training.seed, ranking.max_length) == (30, "random", 3, 30)


def test_a_model_that_sees_the_whole_history_learns_at_its_end_alone():
    config = MLSA4RecConfig(causal=False, max_position_embeddings=50)
    assert collators_for(config, max_length=30).training.train_on == "last_position"
    assert collators_for(MLSA4RecConfig(), max_length=30).training.train_on == "every_position"


def test_cloze_takes_its_rates_from_the_configuration():
    config = BERT4RecConfig(vocab_size=52, mask_probability=0.4, mask_last_probability=0.5)
    training, ranking = collators_for(config, max_length=30, window="random", seed=3)
    assert isinstance(training, ClozeCollator)
    assert (training.max_length, training.window, training.seed) == (30, "random", 3)
    assert (training.mask_row, training.mask_probability, training.mask_last_probability) == (51, 0.4, 0.5)
    # Beside the mask, which the model appends.
    assert isinstance(ranking, RankingCollator)
    assert ranking.max_length == 29
    with pytest.raises(ValueError, match="`max_length` must be at least 2, got 1"):
        collators_for(config, max_length=1)


def test_unknown_objective():
    with pytest.raises(ValueError, match="must be one of next_item, last_item, cloze, got 'guess'"):
        collators_for(SimpleNamespace(objective="guess"), max_length=30)


def test_where_it_is_learned():
    config = Mamba4RecConfig()
    for train_on, expected in (
        (None, "every_position"),
        ("every_position", "every_position"),
        ("last_position", "last_position"),
        ("every_prefix", "last_position"),
    ):
        assert collators_for(config, max_length=30, train_on=train_on).training.train_on == expected
    whole_history = MLSA4RecConfig(causal=False, max_position_embeddings=50)
    assert collators_for(whole_history, 30, train_on="every_prefix").training.train_on == "last_position"


def test_where_it_cannot_be_learned():
    whole_history = MLSA4RecConfig(causal=False, max_position_embeddings=50)
    with pytest.raises(ValueError, match=r"'last_position' or 'every_prefix' or left out.*got 'every_position': with"):
        collators_for(whole_history, 30, train_on="every_position")
    with pytest.raises(ValueError, match=r"`train_on` must be left out for this model, got 'last_position'.*masked"):
        collators_for(BERT4RecConfig(), 30, train_on="last_position")
    with pytest.raises(ValueError, match="got 'first_position'"):
        collators_for(Mamba4RecConfig(), 30, train_on="first_position")
