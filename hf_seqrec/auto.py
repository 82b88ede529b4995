"""Registration with transformers' Auto classes, put off until transformers' own registries are imported."""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

# A model is a pair of files, configuration_<model_type>.py and modeling_<model_type>.py; nothing else lists it.
MODEL_TYPES = tuple(
    sorted(
        path.stem.removeprefix("configuration_")
        for path in (Path(__file__).parent / "models").glob("configuration_*.py")
        if path.stem != "configuration_seqrec"
    )
)


def config_class(model_type: str) -> type:
    """Return the configuration class of one of [`MODEL_TYPES`]."""
    return _class_named(f"configuration_{model_type}", f"{model_type}config")


def model_class(model_type: str) -> type:
    """Return the model class of one of [`MODEL_TYPES`]."""
    # A modeling file imports this registry on its way. Were that the registry's first import, it would register the
    # class before the file has defined it.
    importlib.import_module("transformers.models.auto.modeling_auto")
    return _class_named(f"modeling_{model_type}", model_type)


def _class_named(module_name: str, lower_case_name: str) -> type:
    module = importlib.import_module(f"hf_seqrec.models.{module_name}")
    return next(value for name, value in vars(module).items() if name.lower() == lower_case_name)


def _register_configs(module: Any) -> None:
    for model_type in MODEL_TYPES:
        module.AutoConfig.register(model_type, config_class(model_type), exist_ok=True)


def _register_models(module: Any) -> None:
    for model_type in MODEL_TYPES:
        module.AutoModel.register(config_class(model_type), model_class(model_type), exist_ok=True)


_REGISTRATIONS: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
}


def register_auto_classes() -> None:
    """
    Make `AutoConfig` and `AutoModel` know our models, now where they are imported and else as soon as they are.

    Registering needs the classes, hence torch; `import hf_seqrec` should not load torch for those who only want its
    metrics or its data.
    """
    for name, register in _REGISTRATIONS.items():
        module = sys.modules.get(name)
        # A module in the middle of its own import has no Auto class yet.
        if module is not None and getattr(module.__spec__, "_initializing", False) is False:
            register(module)
    if not any(isinstance(finder, _RegistrationFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegistrationFinder())


class _RegistrationFinder(MetaPathFinder):
    """Finds transformers' two registry modules as usual, and registers our classes once they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, _REGISTRATIONS[fullname])
        return spec


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader, register: Callable[[Any], None]) -> None:
        self.loader = loader
        self.register = register

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.register(module)
