"""Sequential recommendation on Hugging Face: state-space recommenders that train, evaluate, share and serve."""

import importlib
from typing import TYPE_CHECKING, Any

from .auto import register_auto_classes
from .models import MODEL_TYPES, config_class, model_class

__version__ = "0.1.0"

# Where each public name lives; imported at first use, so that `import hf_seqrec` stays light. Editors and mypy see the
# same names by the imports under TYPE_CHECKING; a test holds the two equal.
_HOMES = {
    "Catalog": "data.catalog",
    "Recommender": "inference.recommender",
    "SearchIndex": "inference.search_index",
    "SeqRecConfig": "models.configuration_seqrec",
    "SeqRecOutput": "models.modeling_seqrec",
    "SeqRecPreTrainedModel": "models.modeling_seqrec",
    "SeqRecTrainer": "training.trainer",
    "SeqRecTrainingArguments": "training.training_args",
    "SequentialRecommendationPipeline": "inference.pipeline",
    "SessionStore": "inference.sessions",
    "adapt_to_catalog": "checkpoints.adapt",
    "build_dataset": "ingest.build",
    "evaluate_checkpoint": "evaluation.evaluate_checkpoint",
    "extend_dataset": "ingest.extend",
    "global_time_split": "data.global_time_split",
    "leave_one_out": "data.leave_one_out",
    "load_checkpoint": "checkpoints.load",
    "load_sequences": "data.sequences",
}

if TYPE_CHECKING:
    from .checkpoints.adapt import adapt_to_catalog as adapt_to_catalog
    from .checkpoints.load import load_checkpoint as load_checkpoint
    from .data.catalog import Catalog as Catalog
    from .data.global_time_split import global_time_split as global_time_split
    from .data.leave_one_out import leave_one_out as leave_one_out
    from .data.sequences import load_sequences as load_sequences
    from .evaluation.evaluate_checkpoint import evaluate_checkpoint as evaluate_checkpoint
    from .inference.pipeline import SequentialRecommendationPipeline as SequentialRecommendationPipeline
    from .inference.recommender import Recommender as Recommender
    from .inference.search_index import SearchIndex as SearchIndex
    from .inference.sessions import SessionStore as SessionStore
    from .ingest.build import build_dataset as build_dataset
    from .ingest.extend import extend_dataset as extend_dataset
    from .models.configuration_seqrec import SeqRecConfig as SeqRecConfig
    from .models.modeling_seqrec import SeqRecOutput as SeqRecOutput
    from .models.modeling_seqrec import SeqRecPreTrainedModel as SeqRecPreTrainedModel
    from .training.trainer import SeqRecTrainer as SeqRecTrainer
    from .training.training_args import SeqRecTrainingArguments as SeqRecTrainingArguments

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
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
