"""The models, what they share, and which there are; only what a checkpoint carries with it is in this folder."""

import importlib
from pathlib import Path
from typing import Any

# What several models share, and no models themselves.
_BASES = ("seqrec", "state_space")
# A model is a pair of files, configuration_<model_type>.py and modeling_<model_type>.py; nothing else lists it.
MODEL_TYPES = tuple(
    sorted(
        path.stem.removeprefix("configuration_")
        for path in Path(__file__).parent.glob("configuration_*.py")
        if path.stem.removeprefix("configuration_") not in _BASES
    )
)


def config_class(model_type: str) -> type[Any]:
    """Return the configuration class of one of [`MODEL_TYPES`]."""
    return _class_named(f"configuration_{model_type}", f"{model_type}config")


def model_class(model_type: str) -> type[Any]:
    """Return the model class of one of [`MODEL_TYPES`]."""
    return _class_named(f"modeling_{model_type}", model_type)


def _class_named(module_name: str, lower_case_name: str) -> type[Any]:
    module = importlib.import_module(f"{__name__}.{module_name}")
    return next(value for name, value in vars(module).items() if name.lower() == lower_case_name)
