import dataclasses

import pytest
from transformers import PreTrainedConfig

from hf_seqrec.models import MODEL_TYPES, config_class


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_whole_number_is_a_number(model_type):
    config_cls = config_class(model_type)
    config = config_cls(hidden_dropout_prob=0, initializer_range=1, gbce_t=1, label_smoothing=0, layer_norm_eps=1)
    assert (config.hidden_dropout_prob, config.initializer_range) == (0, 1)
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = [field for field in dataclasses.fields(config_cls) if field.name not in inherited]
    numbers = {field.name: field.type for field in fields if isinstance(field.default, float)}
    assert numbers == dict.fromkeys(numbers, int | float)
