"""The configuration of a converted model: from its weights' shapes, its authors' notes, and what is given."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ...models import config_class
from ...models.configuration_seqrec import SeqRecConfig
from .sources import Source

# Parameters of ours whose shape says what a field is: name, axis, field. `#` stands for a number.
_SHAPES = (
    ("item_embeddings.weight", 0, "vocab_size"),
    ("item_embeddings.weight", 1, "hidden_size"),
    ("position_embeddings.weight", 0, "max_position_embeddings"),
    ("layers.#.mixer.A_log", 1, "state_size"),
    ("layers.#.mixer.conv1d.weight", 2, "conv_kernel"),
    ("layers.#.mixer.dt_proj.weight", 1, "time_step_rank"),
    ("layers.#.feed_forward.in_proj.weight", 0, "intermediate_size"),
    ("layers.#.gru.weight_hh_l0", 1, "gru_hidden_size"),
    ("interest_layer.attention.key_interests", 1, "num_interests"),
)


class KnownField(NamedTuple):
    """A field's value, and how it is known."""

    value: Any
    how: str


def noted_beside(path: Path) -> dict[str, Any]:
    r"""
    Return the hyper-parameters in a checkpoint's name and in `args.txt` beside it, as SASRec's PyTorch code and its
    descendants write them; empty if there are none.

    `args.txt` is that of the last run in its folder: where it contradicts the name, it is of another one.
    """
    in_name: dict[str, Any] = {
        theirs: int(found[1])
        for written, theirs in (
            ("layer", "num_blocks"),
            ("head", "num_heads"),
            ("hidden", "hidden_units"),
            ("maxlen", "maxlen"),
        )
        if (found := re.search(rf"\.{written}=(\d+)\.", path.name))
    }
    if not in_name:
        return {}
    notes = path.with_name("args.txt")
    lines = notes.read_text(encoding="utf-8", errors="replace").splitlines() if notes.is_file() else []
    in_notes = {name: value for name, _, value in (line.partition(",") for line in lines)}
    if not in_notes or any(in_notes.get(name) != str(value) for name, value in in_name.items()):
        return in_name
    # The option came in May 2025, with the two arrangements that it chooses between.
    normalization = {"True": "pre", "False": "post"}.get(in_notes.get("norm_first", ""), "query")
    noted = in_name | {"normalization": normalization}
    dropout = in_notes.get("dropout_rate", "")
    if re.fullmatch(r"0|0?\.\d+", dropout):
        noted["dropout_rate"] = float(dropout)
    return noted


def configure(
    source: Source, weights: Mapping[str, Tensor], hyper_parameters: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[SeqRecConfig, dict[str, KnownField]]:
    r"""
    Make the configuration, and say how each field is known; those left out have their defaults.

    Args:
        source ([`Source`]): Whose checkpoint it is.
        weights (`dict[str, torch.Tensor]`): Its weights, under our names.
        hyper_parameters (`dict[str, Any]`): What its code noted, under its names.
        given (`dict[str, Any]`): Fields of our configuration that the caller sets.

    Raises:
        ValueError: if two of them contradict each other, or a field that nothing tells is missing.
    """
    config_cls = config_class(source.model_type)
    defaults = {field.name: field.default for field in dataclasses.fields(config_cls)}
    unknown = sorted(given.keys() - defaults.keys())
    if unknown:
        raise ValueError(f"`config` has {', '.join(unknown)}, which {config_cls.__name__} does not have.")
    known = {name: KnownField(value, "weights") for name, value in _from_shapes(weights).items() if name in defaults}
    known |= {name: KnownField(value, "as its code computes") for name, value in source.fixed.items()}
    firm = dict(known)
    said = [
        (name, KnownField(hyper_parameters[theirs], "its hyper-parameters"))
        for theirs, names in source.fields.items()
        if theirs in hyper_parameters
        for name in names
    ]
    said += [(name, KnownField(value, "given")) for name, value in given.items()]
    for name, field in said:
        if isinstance(defaults[name], float) and isinstance(field.value, int):
            field = KnownField(float(field.value), field.how)
        if name in firm and firm[name].value != field.value:
            raise ValueError(
                f"`{name}` is {field.value!r} ({field.how}), but {firm[name].value!r} ({firm[name].how}). "
                + ("Leave it out of `config`." if field.how == "given" else "The two are not of one checkpoint.")
            )
        known.setdefault(name, field)
        if field.how == "given":
            known[name] = field
    missing = [name for name in source.required if name not in known]
    if missing:
        options = " ".join(f"{name}=..." for name in missing)
        raise ValueError(
            f"`{'`, `'.join(missing)}` cannot be seen in the weights of {source.name}, and changes what they compute. "
            f"Say it with `--config {options}`"
            + (
                ': "query" for the code before May 2025, since then "post", or "pre" if trained with `--norm_first`.'
                if "normalization" in missing
                else ", as the model was trained."
            )
        )
    try:
        config = config_cls(**{name: field.value for name, field in known.items()})
    except StrictDataclassError as error:
        raise ValueError(
            f"`config` or the hyper-parameters in `source` do not fit {config_cls.__name__}: {error}"
        ) from error
    return config, known


def _from_shapes(weights: Mapping[str, Tensor]) -> dict[str, int]:
    fields: dict[str, int] = {}
    for pattern, axis, name in _SHAPES:
        regular = re.compile(re.escape(pattern).replace(r"\#", r"\d+"))
        sizes = [
            weight.shape[axis] for their, weight in weights.items() if regular.fullmatch(their) and weight.dim() > axis
        ]
        if sizes:
            fields[name] = sizes[0]
    layers = {found[1] for name in weights if (found := re.match(r"layers\.(\d+)\.", name))}
    if layers:
        fields["num_hidden_layers"] = len(layers)
    channels = next(
        (len(weight) for name, weight in weights.items() if name.endswith("mixer.D") and weight.dim()), None
    )
    if channels and fields.get("hidden_size"):
        fields["expand"] = channels // fields["hidden_size"]
    return fields
