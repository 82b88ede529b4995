"""
Checkpoints as the authors' code writes them, made from models of ours by writing their names down once more.

The weights are those with which the authors' code gave the outputs in `tests/fixtures`: see the tests of each model
for how it was run. What a checkpoint of theirs has and a model of ours has not is filled with other numbers.
"""

import sys
from enum import Enum
from types import ModuleType

import numpy as np
import torch
import yaml

from tests.models.reference_outputs import model_of


def state_dict_of(case):
    """Return the weights of a case under their authors' names."""
    ours = {name: weight.clone() for name, weight in model_of(case).state_dict().items()}
    return _WRITERS[case["model_type"]](ours)


def other_numbers(*shape):
    return torch.from_numpy(np.random.RandomState(99).standard_normal(shape)).float()


def renamed(ours, **prefixes):
    """Return the weights of every module, `theirs=ours`, both with `__` for a dot; each must have some."""
    theirs = {}
    for new, old in prefixes.items():
        new, old = new.replace("__", "."), old.replace("__", ".")
        found = {new + name[len(old) :]: w for name, w in ours.items() if name == old or name.startswith(f"{old}.")}
        assert found, old
        theirs |= found
    return theirs


def mamba4rec(ours):
    theirs = renamed(ours, item_embedding="item_embeddings", LayerNorm="layer_norm")
    for i in range(len(ours)):
        if f"layers.{i}.mixer.D" in ours:
            theirs |= renamed(
                ours,
                **{
                    f"mamba_layers.{i}.mamba": f"layers.{i}.mixer",
                    f"mamba_layers.{i}.LayerNorm": f"layers.{i}.layer_norm",
                    f"mamba_layers.{i}.ffn.w_1": f"layers.{i}.feed_forward.in_proj",
                    f"mamba_layers.{i}.ffn.w_2": f"layers.{i}.feed_forward.out_proj",
                    f"mamba_layers.{i}.ffn.LayerNorm": f"layers.{i}.feed_forward.layer_norm",
                },
            )
    return theirs


def mlsa4rec(ours):
    theirs = renamed(ours, item_embedding="item_embeddings", LayerNorm="layer_norm")
    theirs |= renamed(ours, models__0__mambas__0="interest_layer.mixer", mamba="interest_layer.mixer")
    for new, old in {
        "mlp1": "gate_proj",
        "mlp2": "out_proj",
        "mlp3": "skip_proj",
        "LayerNorm1": "mixer_layer_norm",
        "LayerNorm2": "gate_layer_norm",
        "LayerNorm3": "layer_norm",
        "trm_encoder.query": "attention.q_proj",
        "trm_encoder.key": "attention.k_proj",
        "trm_encoder.value": "attention.v_proj",
        "trm_encoder.LayerNorm": "attention.layer_norm",
        "trm_encoder.attpooling_key.theta": "attention.key_interests",
        "trm_encoder.attpooling_value.theta": "attention.value_interests",
    }.items():
        theirs |= renamed(ours, **{f"models.0.{new}": f"interest_layer.{old}"})
    width = ours["item_embeddings.weight"].shape[1]
    for unused in ("pos_q_linear", "pos_k_linear", "dense", "pos_ln"):
        theirs[f"models.0.trm_encoder.{unused}.weight"] = other_numbers(
            *([width] if unused == "pos_ln" else [width] * 2)
        )
        theirs[f"models.0.trm_encoder.{unused}.bias"] = other_numbers(width)
    for i in (0, 1):
        theirs |= renamed(
            ours,
            **{
                f"mamba_layers.{i}.mamba": f"layers.{i}.mixer",
                f"mamba_layers.{i}.LayerNorm": f"layers.{i}.layer_norm",
            },
        )
    return theirs


def gru4rec(ours):
    theirs = renamed(ours, item_embedding="item_embeddings", dense="out_proj")
    for name, weight in ours.items():
        if ".gru." in name:
            _, layer, _, parameter = name.split(".")
            theirs[f"gru_layers.{parameter.removesuffix('0')}{layer}"] = weight
    return theirs


def bert4rec(ours):
    theirs = renamed(
        ours,
        item_embedding="item_embeddings",
        position_embedding="position_embeddings",
        LayerNorm="layer_norm",
        output_ffn="transform",
        output_ln="transform_layer_norm",
        output_bias="output_bias",
    )
    for i in (0, 1):
        for new, old in {
            "multi_head_attention.query": "attention.q_proj",
            "multi_head_attention.key": "attention.k_proj",
            "multi_head_attention.value": "attention.v_proj",
            "multi_head_attention.dense": "attention.out_proj",
            "multi_head_attention.LayerNorm": "layer_norm",
            "feed_forward.dense_1": "feed_forward.in_proj",
            "feed_forward.dense_2": "feed_forward.out_proj",
            "feed_forward.LayerNorm": "feed_forward.layer_norm",
        }.items():
            theirs |= renamed(ours, **{f"trm_encoder.layer.{i}.{new}": f"layers.{i}.{old}"})
        theirs[f"trm_encoder.layer.{i}.multi_head_attention.key.bias"] = other_numbers(
            ours["item_embeddings.weight"].shape[1]
        )
    return theirs


def sasrec(ours):
    items, positions = ours["item_embeddings.weight"], ours["position_embeddings.weight"]
    # Its training script clears both, and nothing changes them later.
    items[0] = 0
    theirs = {"item_emb.weight": items, "pos_emb.weight": torch.cat([torch.zeros(1, items.shape[1]), positions])}
    theirs |= renamed(ours, last_layernorm="layer_norm")
    for i in (0, 1):
        theirs |= renamed(
            ours,
            **{
                f"attention_layernorms.{i}": f"layers.{i}.attention_layer_norm",
                f"attention_layers.{i}.out_proj": f"layers.{i}.attention.out_proj",
                f"forward_layernorms.{i}": f"layers.{i}.feed_forward_layer_norm",
            },
        )
        theirs |= in_proj(ours, f"attention_layers.{i}", f"layers.{i}.attention")
        for conv, linear in (("conv1", "in_proj"), ("conv2", "out_proj")):
            theirs[f"forward_layers.{i}.{conv}.weight"] = ours[f"layers.{i}.{linear}.weight"][:, :, None]
            theirs[f"forward_layers.{i}.{conv}.bias"] = ours[f"layers.{i}.{linear}.bias"]
    return theirs


def in_proj(ours, theirs, attention):
    """One matrix and one bias for queries, keys and values, as `torch.nn.MultiheadAttention` has them."""
    query, key, value = (ours[f"{attention}.{name}_proj.weight"] for name in "qkv")
    key_bias = other_numbers(len(key))
    return {
        f"{theirs}.in_proj_weight": torch.cat([query, key, value]),
        f"{theirs}.in_proj_bias": torch.cat(
            [ours[f"{attention}.q_proj.bias"], key_bias, ours[f"{attention}.v_proj.bias"]]
        ),
    }


def recmamba(ours):
    return renamed(ours, item_emb="item_embeddings", pos_emb="position_embeddings", mamba1="layers.0.mixer")


def moematrrec(ours):
    theirs = recmamba(ours) | in_proj(ours, "attention_layer", "layers.0.attention")
    for new, old in {
        "attention_layer.out_proj": "attention.out_proj",
        "attention_layernorm": "attention_layer_norm",
        "mamba_weight": "gate_proj",
        "feedforward.0": "feed_forward.in_proj",
        "feedforward.2": "feed_forward.out_proj",
        "feedforward_layernorm": "feed_forward.layer_norm",
    }.items():
        theirs |= renamed(ours, **{new: f"layers.0.{old}"})
    return theirs


_WRITERS = {
    writer.__name__: writer for writer in (mamba4rec, mlsa4rec, gru4rec, bert4rec, sasrec, recmamba, moematrrec)
}


def save_as_recbole(monkeypatch, path, state_dict, model, **hyper_parameters):
    """
    Save as RecBole's trainer does: its `Config` and what that refers to, optimizer and all, pickled by protocol 4.

    Classes are pickled by name, so modules of these names are there while it is written, and gone when it is read.
    """

    class Config:
        def __init__(self, model_class):
            self.model, self.model_class, self.yaml_loader = model, model_class, yaml.FullLoader
            self.final_config_dict = {
                "model": model,
                "MODEL_TYPE": ModelType.SEQUENTIAL,
                "device": torch.device("cpu"),
                "topk": [10],
                "train_neg_sample_args": None,
                **hyper_parameters,
            }

    class ModelType(Enum):
        SEQUENTIAL = 2

    model_class = type(model, (), {})
    with monkeypatch.context() as patch:
        for module_name, cls in (
            ("recbole.config.configurator", Config),
            ("recbole.utils.enum_type", ModelType),
            (model.lower(), model_class),
        ):
            parents = module_name.split(".")[:-1]
            for depth in range(len(parents)):
                parent = ".".join(parents[: depth + 1])
                patch.setitem(sys.modules, parent, ModuleType(parent))
            module = ModuleType(module_name)
            cls.__module__, cls.__qualname__ = module_name, cls.__name__
            setattr(module, cls.__name__, cls)
            patch.setitem(sys.modules, module_name, module)
        checkpoint = {
            "config": Config(model_class),
            "epoch": 3,
            "cur_step": 0,
            "best_valid_score": np.float64(0.1),
            "state_dict": state_dict,
            "other_parameter": None,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        }
        torch.save(checkpoint, path, pickle_protocol=4)
    return path
