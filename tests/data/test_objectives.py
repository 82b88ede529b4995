from types import SimpleNamespace

import pytest

from hf_seqrec import BERT4RecConfig, Mamba4RecConfig, MLSA4RecConfig
from hf_seqrec.data.cloze import ClozeCollator, ClozeRankingCollator
from hf_seqrec.data.collators import NextItemCollator, RankingCollator
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
    assert isinstance(ranking, ClozeRankingCollator)
    assert (training.max_length, training.window, training.seed) == (30, "random", 3)
    assert (training.mask_row, training.mask_probability, training.mask_last_probability) == (51, 0.4, 0.5)
    assert ranking.mask_row == 51


def test_unknown_objective():
    with pytest.raises(ValueError, match="must be one of next_item, last_item, cloze, got 'guess'"):
        collators_for(SimpleNamespace(objective="guess"), max_length=30)
