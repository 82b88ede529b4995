"""A model is two files: written into a copy of the package, they register, keep every promise, train and travel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CONFIGURATION = '''"""Configuration of EMA4Rec."""

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class EMA4RecConfig(SeqRecConfig):
    """Configuration of [`EMA4Rec`], which has no fields of its own."""

    model_type = "ema4rec"
'''

MODEL = '''"""EMA4Rec: an exponential moving average over the items."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_ema4rec import EMA4RecConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout
from .modeling_seqrec import SeqRecPreTrainedModel


class EMA4RecLayer(GradientCheckpointingLayer):
    """`LayerNorm(x_t + W h_t)` with `h_t = a h_{t-1} + (1 - a) x_t`, and `a` learned for each channel."""

    def __init__(self, config: EMA4RecConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.decay = nn.Parameter(torch.empty(config.hidden_size))
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        a, cache = self.decay.sigmoid(), context.cache
        average = None if cache is None else cache.get(self.layer_idx, "average")
        average = torch.zeros_like(hidden_states[:, 0]) if average is None else average
        averages = []
        for x, is_real in zip(hidden_states.unbind(1), context.attention_mask.unbind(1), strict=True):
            average = torch.where(is_real[:, None] > 0, a * average + (1 - a) * x, average)
            averages.append(average)
        if cache is not None:
            cache.set(self.layer_idx, "average", average)
        mixed = self.out_proj(torch.stack(averages, dim=1))
        return context.needed(self.layer_norm(hidden_states + mixed))


class EMA4Rec(SeqRecPreTrainedModel):
    """EMA4Rec (of a test, https://example.org): `dropout(embedding)`, then [`EMA4RecLayer`]s."""

    config: EMA4RecConfig
    _no_split_modules = ["EMA4RecLayer"]
    _can_record_outputs = {"hidden_states": EMA4RecLayer}

    def __init__(self, config: EMA4RecConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(EMA4RecLayer(config, index) for index in range(config.num_hidden_layers))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EMA4RecLayer):
            init.zeros_(module.decay)

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        return self.run_layers(self.dropout(inputs_embeds * self.config.hidden_size**0.5), context)
'''

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_seqrec"] = None
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
rows, _ = model.recommend(torch.tensor([[1, 2, 3]]), top_k=3)
print(json.dumps([type(model).__name__, rows.tolist()]))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Copy the package and its tests, and add the two files."""
    clone = tmp_path_factory.mktemp("clone")
    for folder in ("hf_seqrec", "tests"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "hf_seqrec/models/configuration_ema4rec.py").write_text(CONFIGURATION)
    (clone / "hf_seqrec/models/modeling_ema4rec.py").write_text(MODEL)
    return clone


def run(clone, *command, **options):
    environment = os.environ | {"PYTHONPATH": str(clone), "PYTEST_XDIST_WORKER_COUNT": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_CURRENT")}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=clone, env=environment, capture_output=True, text=True, **options
    )


def test_it_keeps_what_every_model_promises(clone):
    tests = ["tests/models/test_contract.py", "tests/models/test_remote_code.py"]
    done = run(clone, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "ema4rec", *tests)
    assert done.returncode == 0, done.stdout[-3000:]
    # Of the contract alone there are more.
    assert int(done.stdout.split(" passed")[0].rsplit(maxsplit=1)[-1]) >= 20, done.stdout[-500:]


def test_the_command_trains_it_and_its_checkpoint_travels(clone, tmp_path):
    words = ["--model_type", "ema4rec", "--hidden_size", 16, "--max_steps", 3, "--max_length", 20, "--use_cpu"]
    output = tmp_path / "run"
    done = run(clone, "-m", "hf_seqrec", "train", *words, "--output_dir", output, "--report_to", "none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((output / "results.json").read_text())["model_type"] == "ema4rec"
    loaded = run(clone, "-c", WITHOUT_THE_PACKAGE, output)
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    name, rows = json.loads(loaded.stdout.splitlines()[-1])
    assert name == "EMA4Rec"
    assert len(rows[0]) == 3
