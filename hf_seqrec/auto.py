"""Registration with transformers' Auto classes and pipelines, put off until its own registries are imported."""

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .models import MODEL_TYPES, config_class, model_class


def _register_configs(module: Any) -> None:
    for model_type in MODEL_TYPES:
        module.AutoConfig.register(model_type, config_class(model_type), exist_ok=True)


def _register_models(module: Any) -> None:
    for model_type in MODEL_TYPES:
        module.AutoModel.register(config_class(model_type), model_class(model_type), exist_ok=True)


def _register_pipeline(module: Any) -> None:
    from transformers import AutoModel

    from .inference.pipeline import TASK, SequentialRecommendationPipeline

    if TASK not in module.PIPELINE_REGISTRY.supported_tasks:
        module.PIPELINE_REGISTRY.register_pipeline(TASK, SequentialRecommendationPipeline, pt_model=AutoModel)


# Which registration each of transformers' registries is waiting for.
_REGISTRATIONS: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.pipelines": _register_pipeline,
}


def register_auto_classes() -> None:
    """
    Make `AutoConfig`, `AutoModel` and `pipeline` know us, now where they are imported and else as soon as they are.

    Registering needs the classes, hence torch; `import hf_seqrec` should not load torch for those who only want its
    metrics or its data.
    """
    if not any(isinstance(finder, _RegisteringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisteringFinder())
    for name, register in _REGISTRATIONS.items():
        module = sys.modules.get(name)
        # A module in the middle of its own import has no Auto class yet.
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            register(module)


class _Imports(threading.local):
    """How many of the modules that are watched are being imported within each other, in this thread."""

    depth = 0


_imports = _Imports()
_pending: list[Callable[[], None]] = []


class _RegisteringFinder(MetaPathFinder):
    """
    Finds transformers' modules and ours as usual, and has our classes registered once the import is over.

    Not sooner: a model and the pipeline import a registry on their way, and so does transformers' own code that they
    import. In the middle of either, the classes to register cannot be imported yet.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(("transformers.", "hf_seqrec.models.", "hf_seqrec.inference.pipeline")):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _RegisteringLoader(spec.loader)
                return spec
        return None


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if it had been imported without us.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        _imports.depth += 1
        try:
            self.loader.exec_module(module)
        finally:
            _imports.depth -= 1
        if module.__name__ in _REGISTRATIONS:
            _pending.append(functools.partial(_REGISTRATIONS[module.__name__], module))
        while _pending and _imports.depth == 0:
            _pending.pop(0)()
