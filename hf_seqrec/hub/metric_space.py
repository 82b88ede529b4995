"""
Share an `evaluate` module of this package as a Space on the Hub: its file, what it imports, a card and a widget.

    hf-seqrec push full_ranking my-name/full_ranking

Then anybody has `evaluate.load("my-name/full_ranking")`, without this package.
"""

import ast
import importlib
import importlib.metadata
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitInfo, RepoCard

import hf_seqrec.metrics

from .upload import upload

MODULES = ("full_ranking", "sampled_ranking", "grouped_ranking", "beyond_accuracy")
_METRICS = Path(hf_seqrec.metrics.__file__).parent
# `evaluate`'s widget uses an interface that later versions of gradio do not have; its own metrics name this one.
_GRADIO = "3.19.1"

_APP = """import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("{name}.py"))
"""


def write_metric_space(name: str, output: str | Path) -> Path:
    r"""
    Write the files of a metric's Space into `output/name` and return that folder.

    `evaluate.load` on the folder gives the module, as it will from the Hub.

    Args:
        name (`str`): One of [`MODULES`].
        output (`str`): Where to make the folder. `evaluate` wants it to be called like the module.

    Raises:
        ValueError: if there is no such module.
    """
    if name not in MODULES:
        raise ValueError(f"`name` must be one of {', '.join(MODULES)}, got {name!r}.")
    folder = Path(output) / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [name, *_siblings(name)]
    for file in files:
        shutil.copyfile(_METRICS / f"{file}.py", folder / f"{file}.py")
    card = render_metric_card(name)
    card.save(folder / "README.md")
    (folder / "app.py").write_text(_APP.format(name=name), encoding="utf-8")
    requirements = [
        f"{package}>={importlib.metadata.version(package)}" for package in ("datasets", "evaluate", "numpy")
    ]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    return folder


def render_metric_card(name: str) -> RepoCard:
    """Render the card of a metric from what the module says of itself: description, inputs, example, citation."""
    module_class = _metric_class(name)
    info = module_class().info
    title = re.sub(r"(?<!^)(?=[A-Z])", " ", module_class.__name__)
    metadata = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": _GRADIO,
        "app_file": "app.py",
        "pinned": False,
        "license": "apache-2.0",
        "tags": ["evaluate", "metric", "sequential-recommendation"],
        "description": " ".join(info.description.split(".")[0].split()) + ".",
    }
    example = re.search(r"```python\n.*?```", inspect.getdoc(module_class) or "", flags=re.DOTALL)
    assert example is not None  # tests look at every module
    code = example.group().replace(f"{module_class.__name__}()", f'evaluate.load("user/{name}")')
    code = re.sub(rf'{module_class.__name__}\("(\w+)"\)', rf'evaluate.load("user/{name}", "\1")', code)
    code = re.sub(r"  # evaluate\.load.*", "", code)
    inputs = re.sub(r"\n {8}", " ", info.inputs_description.strip().removeprefix("Args:"))
    arguments = re.sub(r"\n    (\w+): ", r"\n- **\1**: ", inputs)
    sections = [
        f"# Metric card: {title}",
        f"## Description\n\n{info.description.strip()}",
        f"## How to use\n\n{code}",
        f"### Inputs\n{arguments}",
        "## Limits\n\nOne held-out item per user. Numbers of different protocols cannot be compared: say with each "
        "what was ranked, and whether the history was excluded.",
    ]
    if info.citation.strip():
        sections.append(f"## Citation\n\n```bibtex\n{info.citation.strip()}\n```")
    return RepoCard("---\n" + yaml.safe_dump(metadata, sort_keys=False) + "---\n\n" + "\n\n".join(sections) + "\n")


def push_metric_space(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload the metric",
) -> CommitInfo:
    """
    Upload the folder of a metric as a Space and return the commit; see [`~hf_seqrec.hub.upload.upload`].

    Raises:
        ValueError: if the Space is not called like the module, as `evaluate` wants it.
    """
    if repo_id.split("/")[-1] != folder.name:
        raise ValueError(
            f"`repo_id` must end with the name of the metric, or `evaluate.load` would not find its file: got "
            f"{repo_id!r}, expected 'org/{folder.name}'."
        )
    return upload(
        folder,
        repo_id,
        "space",
        space_sdk="gradio",
        private=private,
        revision=revision,
        commit_message=commit_message,
    )


def _metric_class(name: str) -> type[Any]:
    module = importlib.import_module(f"hf_seqrec.metrics.{name}")
    return getattr(module, name.title().replace("_", ""))


def _siblings(name: str) -> list[str]:
    """Return the files of the same folder that a module imports; `evaluate` looks no further either."""
    tree = ast.parse((_METRICS / f"{name}.py").read_text(encoding="utf-8"))
    return [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level and node.module]
