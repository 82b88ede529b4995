"""Recipes: flat YAML files of a run's arguments, those of this package by their short name, `ml-1m/mamba4rec`."""

import importlib.resources
import re
from pathlib import Path
from typing import Any

import yaml

# Where a clone has the same recipes.
_ADDRESS_IN_A_CLONE = "trainer/recipes/"


class _RecipeLoader(yaml.SafeLoader):
    """Reads `no` and `yes` as the words that they are: `eval_strategy: no` names a strategy."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"), list("tTfFoO")
)


def recipe_names() -> list[str]:
    """Return the short names of the recipes that come with the package."""
    return sorted(
        f"{dataset.name}/{recipe.name.removesuffix('.yaml')}"
        for dataset in _folder().iterdir()
        if dataset.is_dir()
        for recipe in dataset.iterdir()
        if recipe.name.endswith(".yaml")
    )


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """
    Read a recipe.

    Args:
        name_or_path (`str`): A YAML file, or the short name of one of [`recipe_names`]; its address in a clone,
            `trainer/recipes/ml-1m/mamba4rec.yaml`, names the same.

    Raises:
        ValueError: if there is no such recipe, it is not YAML, or not a flat mapping.
    """
    try:
        recipe = yaml.load(_text(name_or_path), _RecipeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"The recipe {name_or_path} cannot be read as YAML: {error}") from error
    if not isinstance(recipe, dict) or any(isinstance(value, dict) for value in recipe.values()):
        raise ValueError(
            f"The recipe {name_or_path} must be a flat YAML mapping of arguments, such as `hidden_size: 64`."
        )
    return recipe


def _text(name_or_path: str) -> str:
    path = Path(name_or_path)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    name = path.as_posix().split(_ADDRESS_IN_A_CLONE)[-1].removesuffix(".yaml")
    if name in recipe_names():
        return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    raise ValueError(
        f"`--config` must be a recipe, but there is no file {name_or_path}, and no recipe of that name. There are "
        f"{', '.join(recipe_names())}."
    )


def _folder() -> Any:
    """Return the folder of the recipes, a path or its like in an archive."""
    return importlib.resources.files("hf_seqrec") / "recipes"
