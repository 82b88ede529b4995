"""The arguments of a run: a recipe's flat YAML and the command line, which wins, as typed records."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from transformers import HfArgumentParser, PreTrainedConfig

from ..checkpoints.adapt import NEW_ITEMS
from ..checkpoints.load import checkpoint_folder, load_config
from ..ingest.open_dataset import DataArguments
from ..models import MODEL_TYPES, config_class
from .run_record import OnResume, RunIdentity, marked_fields
from .training_args import SeqRecTrainingArguments


@dataclass
class ModelArguments:
    """Which model to train. The fields of its configuration are arguments too (`--hidden_size 64`)."""

    model_type: Annotated[str, OnResume.SAME] = field(
        default="mamba4rec",
        metadata={
            "help": "Which system to train. With `model_name_or_path` that of the checkpoint.",
            "choices": list(MODEL_TYPES),
        },
    )
    model_name_or_path: Annotated[str | None, OnResume.SAME] = field(
        default=None,
        metadata={
            "help": "Go on from a checkpoint folder, or a model on the Hub, instead of random weights. Items with the "
            "same raw id keep their embedding."
        },
    )
    model_revision: Annotated[str | None, OnResume.SAME] = field(
        default=None, metadata={"help": "`model_name_or_path`: branch, tag or commit on the Hub."}
    )
    new_items: Annotated[str | None, OnResume.SAME] = field(
        default=None,
        metadata={
            "help": "`model_name_or_path`: what items start from that the checkpoint does not know, see "
            "hf_seqrec/checkpoints/adapt.py. By default `cooccurrence`, and `mean` with `streaming`.",
            "choices": list(NEW_ITEMS),
        },
    )
    keep_vanished_items: Annotated[bool, OnResume.SAME] = field(
        default=False,
        metadata={"help": "`model_name_or_path`: keep the checkpoint's items that the dataset does not have."},
    )
    freeze_encoder: Annotated[bool, OnResume.SAME] = field(
        default=False, metadata={"help": "`model_name_or_path`: train nothing but what the model has for each item."}
    )

    def __post_init__(self) -> None:
        if self.new_items not in (None, *NEW_ITEMS):
            raise ValueError(f"`new_items` must be one of {', '.join(NEW_ITEMS)}, got {self.new_items!r}.")
        names = ("model_revision", "new_items", "keep_vanished_items", "freeze_encoder")
        asked = [name for name in names if getattr(self, name)]
        if asked and self.model_name_or_path is None:
            raise ValueError(
                f"`{'`, `'.join(asked)}` must come with `--model_name_or_path`, a checkpoint to go on from."
            )


class RunArguments(NamedTuple):
    """
    Everything that defines a run.

    Fields:
        model, data, training: the typed arguments.
        network: fields of the model's configuration, by name.
    """

    model: ModelArguments
    network: dict[str, Any]
    data: DataArguments
    training: SeqRecTrainingArguments

    def run_identity(self) -> RunIdentity:
        """Return what a resumed run must share, and what it may change on the record."""
        fields = dataclasses.fields(config_class(self.model.model_type))
        of_the_machine = {field.name for field in fields if field.metadata.get("of_the_machine")}
        training = self.training
        histories = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
        return RunIdentity(
            same={
                **marked_fields(self.model, OnResume.SAME),
                **{name: value for name, value in self.network.items() if name not in of_the_machine},
                **marked_fields(training, OnResume.SAME),
                "histories of a step": histories,
                "ranking": training.protocol.description,
            },
            # Which data these are their hashes tell, wherever they lie and however they were built.
            recorded={**dataclasses.asdict(self.data), **marked_fields(training, OnResume.RECORDED)},
        )


def parse_run_arguments(command_line: Sequence[str] | None = None) -> RunArguments:
    r"""
    Parse `--config recipe.yaml` and the command line, which wins over the recipe.

    Args:
        command_line (`Sequence[str]`, *optional*): Defaults to the process's own.

    Raises:
        ValueError: if the recipe cannot be read or is not a flat mapping, an argument is unknown, or the checkpoint to
            go on from does not allow what is asked for.
        SystemExit: if an argument has the wrong type; the message names it.
    """
    command_line = list(sys.argv[1:] if command_line is None else command_line)
    recipe_path, _ = _peek(command_line)
    recipe = {} if recipe_path is None else _read_recipe(Path(recipe_path))
    # The recipe first: where an argument is given twice, the parser takes the last.
    command_line = [*_as_command_line(recipe), *command_line]
    _, asked = _peek(command_line)
    start = None
    if asked.model_name_or_path is not None:
        start = load_config(checkpoint_folder(asked.model_name_or_path, asked.model_revision))
        if asked.model_type not in (None, start.model_type):
            raise ValueError(
                f"`model_type` must be that of {asked.model_name_or_path}, {start.model_type!r}, got "
                f"{asked.model_type!r}. Leave it out, or train from scratch without `--model_name_or_path`."
            )
    model_type = start.model_type if start is not None else asked.model_type or ModelArguments.model_type

    records: list[Any] = [
        ModelArguments,
        _network_arguments(model_type, start),
        DataArguments,
        SeqRecTrainingArguments,
    ]
    parser = HfArgumentParser(records, description="Train, evaluate and save a sequential recommender.")
    parser.add_argument("--config", help="Recipe: a flat YAML file of these same arguments; the command line wins.")
    parser.set_defaults(**{name: None for name, value in recipe.items() if value is None})
    parser.set_defaults(model_type=model_type)
    model, network, data, training, _, unknown = parser.parse_args_into_dataclasses(
        command_line, return_remaining_strings=True
    )
    if unknown:
        source = f"{recipe_path} or the command line" if recipe_path else "the command line"
        raise ValueError(
            f"Unknown arguments in {source}: {' '.join(unknown)}. `--help` lists those that {model_type} has."
        )
    if training.streaming and data.split != "leave_one_out":
        raise ValueError(f"`split` must be 'leave_one_out' with `--streaming true`, got {data.split!r}.")
    if start is not None:
        _check_start(model, start, dataclasses.asdict(network), training)
    return RunArguments(model, dataclasses.asdict(network), data, training)


def _peek(command_line: list[str]) -> tuple[str | None, ModelArguments]:
    """Read the recipe's path and the model, on which the other arguments depend; no type where none is given."""
    records: list[Any] = [ModelArguments]
    parser = HfArgumentParser(records, add_help=False)
    parser.add_argument("--config")
    parser.set_defaults(model_type=None)
    model, other, _ = parser.parse_args_into_dataclasses(command_line, return_remaining_strings=True)
    return other.config, model


def _check_start(
    model: ModelArguments, start: PreTrainedConfig, network: dict[str, Any], training: SeqRecTrainingArguments
) -> None:
    """Check what is asked of a checkpoint to go on from, and choose how new items start."""
    changed = sorted(name for name, value in network.items() if value != getattr(start, name))
    fields = dataclasses.fields(type(start))
    free = {field.name for field in fields if field.metadata.keys() & {"free_in_fine_tuning", "of_the_machine"}}
    refused = [name for name in changed if name not in free]
    if refused:
        differences = ", ".join(f"{name}: {getattr(start, name)!r} there, {network[name]!r} here" for name in refused)
        raise ValueError(
            f"`{'`, `'.join(refused)}` must be as in {model.model_name_or_path}, the weights of which depend on it "
            f"({differences}). Leave it out, or train from scratch without `--model_name_or_path`."
        )
    longest = start.max_position_embeddings
    if longest is not None and training.max_length > longest:
        raise ValueError(
            f"`max_length` must be at most the {longest} positions that {model.model_name_or_path} has, got "
            f"{training.max_length}. Pass `--max_length {longest}`."
        )
    if training.streaming and (model.keep_vanished_items or model.new_items == "cooccurrence"):
        asked = "keep_vanished_items" if model.keep_vanished_items else "new_items cooccurrence"
        raise ValueError(f"`{asked}` must come without `--streaming true`: it takes histories that are in memory.")
    if model.new_items is None:
        model.new_items = "mean" if training.streaming else "cooccurrence"


def _network_arguments(model_type: str, start: PreTrainedConfig | None) -> type:
    """Make a dataclass of the fields that a model's configuration adds to transformers' own, as `start` has them."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    return dataclasses.make_dataclass(
        "NetworkArguments",
        [
            (
                field.name,
                float if field.type == int | float else field.type,
                dataclasses.field(default=getattr(start, field.name, field.default)),
            )
            for field in dataclasses.fields(config_class(model_type))
            if field.name not in inherited and field.metadata.get("in_recipes", True)
        ],
    )


class _RecipeLoader(yaml.SafeLoader):
    """Reads `no` as the text that it is, as YAML 1.2 does: `eval_strategy: no`. Booleans are `true` and `false`."""


_RecipeLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false", re.IGNORECASE), list("tTfF"))


def _read_recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"`--config` must be a recipe, but there is no file {path}. See trainer/recipes/.")
    recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    if not isinstance(recipe, dict) or any(isinstance(value, dict) for value in recipe.values()):
        raise ValueError(f"The recipe {path} must be a flat YAML mapping of arguments, such as `hidden_size: 64`.")
    return recipe


def _as_command_line(recipe: dict[str, Any]) -> list[str]:
    """Write a recipe as arguments, so that one parser checks both; nulls have no spelling there."""
    arguments = []
    for name, value in recipe.items():
        if value is not None:
            arguments += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return arguments
