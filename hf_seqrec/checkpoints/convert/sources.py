"""Whose checkpoints can be converted: how to tell them, and where each of their weights goes."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Move(NamedTuple):
    r"""
    Where weights go.

    Fields:
        theirs (`str`): Name of a parameter or module of the authors; `#` stands for a number.
        ours (`str`): Its name in our model, with as many `#`; empty if nothing of ours corresponds to it.
        parts (*optional*): Cuts a tensor into ours, by what is appended to `ours`.
        note (`str`): What is left out, and why.
    """

    theirs: str
    ours: str
    parts: Callable[[Tensor], dict[str, Tensor]] | None = None
    note: str = ""

    def apply(self, name: str, weight: Tensor) -> dict[str, Tensor] | None:
        """Return the weights of ours that a weight of theirs becomes; `None` if the move is about another one."""
        pattern = re.escape(self.theirs).replace(r"\#", r"(\d+)")
        match = re.fullmatch(rf"{pattern}(?P<rest>\..+)?", name)
        if match is None:
            return None
        if not self.ours:
            return {}
        ours = self.ours
        for number in match.groups()[:-1]:
            ours = ours.replace("#", number, 1)
        ours += match["rest"] or ""
        if self.parts is None:
            return {ours: weight}
        return {ours + ending: part for ending, part in self.parts(weight).items()}


def _query_key_value(weight: Tensor) -> dict[str, Tensor]:
    width = len(weight) // 3
    return {
        ".q_proj.weight": weight[:width],
        ".k_proj.weight": weight[width : 2 * width],
        ".v_proj.weight": weight[2 * width :],
    }


def _query_value(bias: Tensor) -> dict[str, Tensor]:
    width = len(bias) // 3
    return {".q_proj.bias": bias[:width], ".v_proj.bias": bias[2 * width :]}


def _matrix(weight: Tensor) -> dict[str, Tensor]:
    """A convolution of width 1 is a matrix."""
    return {"": weight.squeeze(-1)}


def _behind_padding(weight: Tensor) -> dict[str, Tensor]:
    return {"": weight[1:]}


_KEY_BIAS = "adds the same to all scores of a query, which the softmax takes away again"
_UNUSED = "never used by the authors' forward pass"
# RecBole's names, and ours.
_LENGTH = {"MAX_ITEM_LIST_LENGTH": ("max_position_embeddings",)}
_MAMBA = {"d_state": ("state_size",), "d_conv": ("conv_kernel",), "expand": ("expand",)}
# Of SASRec's PyTorch code and its descendants.
_SASREC_FIELDS = {
    "hidden_units": ("hidden_size",),
    "maxlen": ("max_position_embeddings",),
    "dropout_rate": ("hidden_dropout_prob",),
}
_ATTENTION_FIELDS = {
    "num_heads": ("num_attention_heads",),
    "dropout_rate": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}


def _check_activation(weights: Mapping[str, Tensor], hyper_parameters: Mapping[str, Any]) -> str | None:
    activation = hyper_parameters.get("hidden_act", "gelu")
    if activation != "gelu":
        return f"its feed-forward networks use {activation!r}, ours and its transform before the scores GELU"
    return None


def _check_padding(weights: Mapping[str, Tensor], hyper_parameters: Mapping[str, Any]) -> str | None:
    if any(name in weights and weights[name][:1].any() for name in ("pos_emb.weight", "item_emb.weight")):
        return (
            "row 0 of its `pos_emb` or `item_emb` is not zero, so it is of code before June 2024 (or its copies in "
            "RecMamba and MambaRec), which clears the padding again behind each block; ours has the padding of the "
            "later code"
        )
    return None


@dataclass(frozen=True)
class Source:
    r"""
    One class of somebody's code.

    Fields:
        name (`str`): Whose it is.
        model_type (`str`): Our model of the same arithmetic.
        tell_tale (`str`): A weight that no other source has.
        moves (`tuple[Move, ...]`): Where its weights go.
        fields (`dict`): Its hyper-parameters, and the fields of our configuration that they set.
        fixed (`dict`): Fields that make ours compute what it computes.
        required (`tuple[str, ...]`): Fields that change what is computed and that no weight's shape shows.
        keeps_padding_row (`bool`): Whether row 0 of its item embedding takes part in what it computes.
        why_not (*optional*): Says why a checkpoint of it cannot be converted, from its weights and hyper-parameters.
    """

    name: str
    model_type: str
    tell_tale: str
    moves: tuple[Move, ...]
    fields: Mapping[str, tuple[str, ...]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    keeps_padding_row: bool = False
    why_not: Callable[[Mapping[str, Tensor], Mapping[str, Any]], str | None] = lambda weights, hyper_parameters: None


MAMBA4REC = Source(
    name="Mamba4Rec (chengkai-liu/Mamba4Rec)",
    model_type="mamba4rec",
    tell_tale="mamba_layers.0.ffn.w_1.weight",
    moves=(
        Move("item_embedding", "item_embeddings"),
        Move("LayerNorm", "layer_norm"),
        Move("mamba_layers.#.mamba", "layers.#.mixer"),
        Move("mamba_layers.#.LayerNorm", "layers.#.layer_norm"),
        Move("mamba_layers.#.ffn.w_1", "layers.#.feed_forward.in_proj"),
        Move("mamba_layers.#.ffn.w_2", "layers.#.feed_forward.out_proj"),
        Move("mamba_layers.#.ffn.LayerNorm", "layers.#.feed_forward.layer_norm"),
    ),
    fields={
        "hidden_size": ("hidden_size",),
        "num_layers": ("num_hidden_layers",),
        "dropout_prob": ("hidden_dropout_prob",),
        **_MAMBA,
        **_LENGTH,
    },
)

MLSA4REC = Source(
    name="MLSA4Rec (Sujz13/MLSA4Rec)",
    model_type="mlsa4rec",
    tell_tale="models.0.trm_encoder.attpooling_key.theta",
    moves=(
        Move("item_embedding", "item_embeddings"),
        Move("LayerNorm", "layer_norm"),
        Move("models.0.mambas.0", "interest_layer.mixer"),
        Move("models.0.LayerNorm1", "interest_layer.mixer_layer_norm"),
        Move("models.0.LayerNorm2", "interest_layer.gate_layer_norm"),
        Move("models.0.LayerNorm3", "interest_layer.layer_norm"),
        Move("models.0.mlp1", "interest_layer.gate_proj"),
        Move("models.0.mlp2", "interest_layer.out_proj"),
        Move("models.0.mlp3", "interest_layer.skip_proj"),
        Move("models.0.trm_encoder.query", "interest_layer.attention.q_proj"),
        Move("models.0.trm_encoder.key", "interest_layer.attention.k_proj"),
        Move("models.0.trm_encoder.value", "interest_layer.attention.v_proj"),
        Move("models.0.trm_encoder.LayerNorm", "interest_layer.attention.layer_norm"),
        Move("models.0.trm_encoder.attpooling_key.theta", "interest_layer.attention.key_interests"),
        Move("models.0.trm_encoder.attpooling_value.theta", "interest_layer.attention.value_interests"),
        Move("models.0.trm_encoder.pos_q_linear", "", note=_UNUSED),
        Move("models.0.trm_encoder.pos_k_linear", "", note=_UNUSED),
        Move("models.0.trm_encoder.pos_ln", "", note=_UNUSED),
        Move("models.0.trm_encoder.dense", "", note=_UNUSED),
        Move("mamba", "", note="the block that the first one started as a copy of; " + _UNUSED),
        Move("mamba_layers.#.mamba", "layers.#.mixer"),
        Move("mamba_layers.#.LayerNorm", "layers.#.layer_norm"),
    ),
    fields={
        "hidden_size": ("hidden_size",),
        "num_layers": ("num_hidden_layers",),
        "dropout_prob": ("hidden_dropout_prob",),
        "attn_dropout_prob": ("attention_probs_dropout_prob",),
        "k_interests": ("num_interests",),
        "n_heads": ("num_attention_heads",),
        **_MAMBA,
        **_LENGTH,
    },
    fixed={"causal": False},
    required=("num_attention_heads", "max_position_embeddings"),
    keeps_padding_row=True,
)

GRU4REC = Source(
    name="GRU4Rec of RecBole (RUCAIBox/RecBole)",
    model_type="gru4rec",
    tell_tale="gru_layers.weight_ih_l0",
    moves=(
        Move("item_embedding", "item_embeddings"),
        Move("gru_layers.weight_ih_l#", "layers.#.gru.weight_ih_l0"),
        Move("gru_layers.weight_hh_l#", "layers.#.gru.weight_hh_l0"),
        Move("dense", "out_proj"),
    ),
    fields={
        "embedding_size": ("hidden_size",),
        "hidden_size": ("gru_hidden_size",),
        "num_layers": ("num_hidden_layers",),
        "dropout_prob": ("hidden_dropout_prob",),
        **_LENGTH,
    },
)

BERT4REC = Source(
    name="BERT4Rec of RecBole (RUCAIBox/RecBole)",
    model_type="bert4rec",
    tell_tale="output_ffn.weight",
    moves=(
        Move("item_embedding", "item_embeddings"),
        Move("position_embedding", "position_embeddings"),
        Move("LayerNorm", "layer_norm"),
        Move("trm_encoder.layer.#.multi_head_attention.query", "layers.#.attention.q_proj"),
        Move("trm_encoder.layer.#.multi_head_attention.key.bias", "", note=_KEY_BIAS),
        Move("trm_encoder.layer.#.multi_head_attention.key", "layers.#.attention.k_proj"),
        Move("trm_encoder.layer.#.multi_head_attention.value", "layers.#.attention.v_proj"),
        Move("trm_encoder.layer.#.multi_head_attention.dense", "layers.#.attention.out_proj"),
        Move("trm_encoder.layer.#.multi_head_attention.LayerNorm", "layers.#.layer_norm"),
        Move("trm_encoder.layer.#.feed_forward.dense_1", "layers.#.feed_forward.in_proj"),
        Move("trm_encoder.layer.#.feed_forward.dense_2", "layers.#.feed_forward.out_proj"),
        Move("trm_encoder.layer.#.feed_forward.LayerNorm", "layers.#.feed_forward.layer_norm"),
        Move("output_ffn", "transform"),
        Move("output_ln", "transform_layer_norm"),
        Move("output_bias", "output_bias"),
    ),
    fields={
        "hidden_size": ("hidden_size",),
        "inner_size": ("intermediate_size",),
        "n_layers": ("num_hidden_layers",),
        "n_heads": ("num_attention_heads",),
        "hidden_dropout_prob": ("hidden_dropout_prob",),
        "attn_dropout_prob": ("attention_probs_dropout_prob",),
        "layer_norm_eps": ("layer_norm_eps",),
        "mask_ratio": ("mask_probability",),
        **_LENGTH,
    },
    required=("num_attention_heads",),
    why_not=_check_activation,
)

SASREC = Source(
    name="SASRec (pmixer/SASRec.pytorch)",
    model_type="sasrec",
    tell_tale="attention_layernorms.0.weight",
    moves=(
        Move("item_emb", "item_embeddings"),
        Move("pos_emb.weight", "position_embeddings.weight", _behind_padding, note="row 0, of the padding: is zero"),
        Move("attention_layernorms.#", "layers.#.attention_layer_norm"),
        Move("attention_layers.#.in_proj_weight", "layers.#.attention", _query_key_value),
        Move(
            "attention_layers.#.in_proj_bias",
            "layers.#.attention",
            _query_value,
            note="the keys' third: " + _KEY_BIAS,
        ),
        Move("attention_layers.#.out_proj", "layers.#.attention.out_proj"),
        Move("forward_layernorms.#", "layers.#.feed_forward_layer_norm"),
        Move("forward_layers.#.conv1.weight", "layers.#.in_proj.weight", _matrix),
        Move("forward_layers.#.conv1.bias", "layers.#.in_proj.bias"),
        Move("forward_layers.#.conv2.weight", "layers.#.out_proj.weight", _matrix),
        Move("forward_layers.#.conv2.bias", "layers.#.out_proj.bias"),
        Move("last_layernorm", "layer_norm"),
    ),
    fields={
        **_SASREC_FIELDS,
        **_ATTENTION_FIELDS,
        "num_blocks": ("num_hidden_layers",),
        "normalization": ("normalization",),
    },
    fixed={"position_order": "last", "attend_to_padding": True},
    required=("num_attention_heads", "normalization"),
    why_not=_check_padding,
)

RECMAMBA = Source(
    name="MambaRec (nancheng58/RecMamba, alokamgnaneswarasai/MambaRec)",
    model_type="recmamba",
    # With `MOEMATRREC` looked for first.
    tell_tale="mamba1.A_log",
    moves=(
        Move("item_emb", "item_embeddings"),
        Move("pos_emb", "position_embeddings"),
        Move("mamba1", "layers.0.mixer"),
    ),
    fields=_SASREC_FIELDS,
    fixed={"reference_padding": True},
    keeps_padding_row=True,
)

MOEMATRREC = Source(
    name="SASmambaRec (alokamgnaneswarasai/MambaRec)",
    model_type="moematrrec",
    tell_tale="mamba_weight.weight",
    moves=(
        Move("item_emb", "item_embeddings"),
        Move("pos_emb", "position_embeddings"),
        Move("mamba1", "layers.0.mixer"),
        Move("attention_layer.in_proj_weight", "layers.0.attention", _query_key_value),
        Move(
            "attention_layer.in_proj_bias",
            "layers.0.attention",
            _query_value,
            note="the keys' third: " + _KEY_BIAS,
        ),
        Move("attention_layer.out_proj", "layers.0.attention.out_proj"),
        Move("attention_layernorm", "layers.0.attention_layer_norm"),
        Move("mamba_weight", "layers.0.gate_proj"),
        Move("feedforward.0", "layers.0.feed_forward.in_proj"),
        Move("feedforward.2", "layers.0.feed_forward.out_proj"),
        Move("feedforward_layernorm", "layers.0.feed_forward.layer_norm"),
    ),
    fields={**_SASREC_FIELDS, **_ATTENTION_FIELDS},
    fixed={"causal": False},
    required=("num_attention_heads",),
    keeps_padding_row=True,
)

# Before 19 December 2024: two learned scalars in place of the gate.
MOEMATRREC_CONSTANT = dataclasses.replace(
    MOEMATRREC,
    name="SASmambaRec with two scalars (alokamgnaneswarasai/MambaRec)",
    tell_tale="attention_weight",
    moves=(
        *(move for move in MOEMATRREC.moves if move.theirs != "mamba_weight"),
        Move("mamba_weight", "layers.0.mamba_weight"),
        Move("attention_weight", "layers.0.attention_weight"),
    ),
    fixed={"causal": False, "gate": "constant"},
)

# In the order in which they are looked for.
SOURCES = (MAMBA4REC, MLSA4REC, GRU4REC, BERT4REC, MOEMATRREC, MOEMATRREC_CONSTANT, SASREC, RECMAMBA)


def find_source(weights: Mapping[str, Tensor], hyper_parameters: Mapping[str, Any], model_type: str | None) -> Source:
    r"""
    Tell whose weights these are.

    Args:
        weights (`dict[str, torch.Tensor]`): Under their authors' names.
        hyper_parameters (`dict[str, Any]`): Of which RecBole's has the name of the model.
        model_type (`str`, *optional*): What they are said to be.

    Raises:
        ValueError: if they are of none of [`SOURCES`], or not what they are said to be.
    """
    claimed = str(hyper_parameters.get("model", "")).lower()
    found = next((source for source in SOURCES if source.tell_tale in weights), None)
    if claimed == "sasrec" or (found is None and not claimed and _RECBOLE_ATTENTION in weights):
        raise ValueError(
            "`source` is SASRec as RecBole has it, which is another architecture than SASRec: BERT's blocks with "
            "GELU, a mask, no scaling of the embeddings and no last normalisation. No model of this package computes "
            "that. Train `sasrec` with `hf-seqrec train`, or convert a checkpoint of pmixer/SASRec.pytorch."
        )
    by_claim = next((source for source in SOURCES if source.model_type == claimed), None)
    if claimed and found is None:
        # Say below what it lacks of what it claims to be.
        found = by_claim
    if found is None:
        known = ", ".join(source.name for source in SOURCES)
        raise ValueError(
            f"`source` has weights of no code that can be converted{f' (its model is {claimed!r})' if claimed else ''}"
            f": {_some(weights)}. Known: {known}."
        )
    for said, who in ((claimed, "the configuration in `source`"), (model_type, "`model_type`")):
        if said and said != found.model_type:
            raise ValueError(
                f"{who} says {said!r}, but these are weights of {found.name}, which is {found.model_type!r} here. "
                f"{_HINTS.get(said, 'Pass the checkpoint that was meant, or leave `model_type` out.')}"
            )
    return found


_RECBOLE_ATTENTION = "trm_encoder.layer.0.multi_head_attention.query.weight"
_HINTS = {
    "mambarec": "The class that its repository calls MambaRec, and with which the numbers of that name were made, is "
    "RecMamba's one bare block with positions: pass `recmamba`. `mambarec` is the stack of blocks of its text.",
}


def _some(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
