"""The arguments of a run: a recipe's flat YAML and the command line, which wins, as typed records."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from transformers import PreTrainedConfig

from ..argument_parser import CommandParser
from ..checkpoints.adapt import NEW_ITEMS
from ..checkpoints.load import checkpoint_folder, load_config
from ..ingest.open_dataset import DataArguments
from ..models import MODEL_TYPES, config_class
from .recipes import read_recipe
from .run_record import OnResume, RunIdentity, marked_fields
from .training_args import SeqRecTrainingArguments

_PROG = "hf-seqrec train"


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


def parse_run_arguments(command_line: Sequence[str] | None = None, doc: str = "") -> RunArguments:
    r"""
    Parse `--config` and the command line, which wins over the recipe.

    Args:
        command_line (`Sequence[str]`, *optional*): Defaults to the process's own.
        doc (`str`, *optional*): What `--help` says besides the arguments.

    Raises:
        ValueError: if the recipe cannot be read or is not a flat mapping, an argument is unknown or has the wrong
            type, or the checkpoint to go on from does not allow what is asked for.
    """
    command_line = list(sys.argv[1:] if command_line is None else command_line)
    recipe_path, _ = _peek(command_line)
    recipe = {} if recipe_path is None else read_recipe(recipe_path)
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
    parser = CommandParser(_PROG, doc, records, usage=f"{_PROG} [--config RECIPE] [--ARGUMENT VALUE ...]")
    parser.add_argument(
        "--config",
        metavar="RECIPE",
        help="Recipe: a short name such as ml-1m/mamba4rec, or a flat YAML file of these same arguments. The command "
        "line wins.",
    )
    parser.set_defaults(**{name: None for name, value in recipe.items() if value is None})
    parser.set_defaults(model_type=model_type)
    model, network, data, training, _, unknown = parser.parse_args_into_dataclasses(
        command_line, return_remaining_strings=True
    )
    if unknown:
        source = f"{recipe_path} or the command line" if recipe_path else "the command line"
        raise ValueError(
            f"Unknown arguments in {source}, for {model_type}: {' '.join(unknown)}. {parser.advice(unknown)}"
        )
    if training.streaming and data.split != "leave_one_out":
        raise ValueError(f"`split` must be 'leave_one_out' with `--streaming true`, got {data.split!r}.")
    fields = dataclasses.asdict(network)
    if start is None:
        _choose_positions(fields, model_type, training.max_length)
        # Any catalog will do: what is wrong with the network is said before the run's folder is written.
        cls = config_class(model_type)
        cls(vocab_size=cls.vocab_size_for(1), **fields)
    else:
        _check_start(model, start, fields, training)
    return RunArguments(model, fields, data, training)


def _peek(command_line: list[str]) -> tuple[str | None, ModelArguments]:
    """Read the recipe's path and the model, on which the other arguments depend; no type where none is given."""
    parser = CommandParser(_PROG, records=[ModelArguments], add_help=False)
    parser.add_argument("--config")
    parser.set_defaults(model_type=None)
    model, other, _ = parser.parse_args_into_dataclasses(command_line, return_remaining_strings=True)
    return other.config, model


def _choose_positions(network: dict[str, Any], model_type: str, max_length: int) -> None:
    """Give a model with positions as many as a history may have, unless their number was chosen."""
    chosen = network.get("max_position_embeddings")
    if chosen is None:
        has_positions = config_class(model_type).max_position_embeddings is not None
        network["max_position_embeddings"] = max_length if has_positions else None
    elif max_length > chosen:
        raise ValueError(
            f"`max_length` must be at most `max_position_embeddings`, {chosen}, got {max_length}. Leave out "
            "`--max_position_embeddings`: it follows `--max_length`."
        )


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
    found = [
        field
        for field in dataclasses.fields(config_class(model_type))
        if field.name not in inherited and field.metadata.get("in_recipes", True)
    ]
    defaults = {field.name: getattr(start, field.name, field.default) for field in found}
    metadata: dict[str, dict[str, Any]] = {}
    if start is None and "max_position_embeddings" in defaults:
        defaults["max_position_embeddings"] = None
        metadata["max_position_embeddings"] = {"help": "Positions of a model that has some; by default `max_length`."}
    return dataclasses.make_dataclass(
        "NetworkArguments",
        [
            (
                field.name,
                float if field.type == int | float else field.type,
                dataclasses.field(default=defaults[field.name], metadata=metadata.get(field.name)),
            )
            for field in found
        ],
    )


def _as_command_line(recipe: dict[str, Any]) -> list[str]:
    """Write a recipe as arguments, so that one parser checks both; nulls have no spelling there."""
    arguments = []
    for name, value in recipe.items():
        if value is not None:
            arguments += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return arguments
