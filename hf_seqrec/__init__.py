"""Sequential recommendation on Hugging Face: state-space recommenders that train, evaluate, share and serve."""

import importlib
from typing import Any

from .auto import register_auto_classes
from .models import MODEL_TYPES, config_class, model_class

__version__ = "0.1.0"

# Where each public name lives; imported at first use, so that `import hf_seqrec` stays light.
_HOMES = {
    "Catalog": "hf_seqrec.data.catalog",
    "Recommender": "hf_seqrec.recommender",
    "SeqRecConfig": "hf_seqrec.models.configuration_seqrec",
    "SeqRecOutput": "hf_seqrec.models.modeling_seqrec",
    "SeqRecPreTrainedModel": "hf_seqrec.models.modeling_seqrec",
    "SeqRecTrainer": "hf_seqrec.training.trainer",
    "SeqRecTrainingArguments": "hf_seqrec.training.training_args",
    "SequentialRecommendationPipeline": "hf_seqrec.pipeline",
}

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    model_type = name.lower().removesuffix("config")
    if model_type in MODEL_TYPES:
        found = config_class(model_type) if name.endswith("Config") else model_class(model_type)
        if found.__name__ == name:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    classes = [
        cls.__name__ for model_type in MODEL_TYPES for cls in (config_class(model_type), model_class(model_type))
    ]
    return sorted([*globals(), *_HOMES, *classes])
