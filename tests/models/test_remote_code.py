"""Every checkpoint loads with its own code where this package cannot be imported."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_seqrec"] = None
import torch
from transformers import AutoConfig, AutoModel

folder, output = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
input_ids = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 0, 0, 0]])
rows, scores = model.recommend(input_ids, top_k=5)
labels = torch.tensor([[1, 4, 1, 5, 9], [7, 6, -100, -100, -100]])
loss = model(input_ids, labels=labels).loss
loss.backward()
model.save_pretrained(output)
print(json.dumps({"rows": rows.tolist(), "scores": scores.tolist(), "loss": loss.item()}))
"""


@pytest.mark.parametrize("model_type", hf_seqrec.MODEL_TYPES)
def test_loads_without_the_package(model_type, tmp_path):
    set_seed(0)
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(30)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=24)).eval()
    model.save_pretrained(tmp_path / "saved")
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, tmp_path / "saved", tmp_path / "saved again"],
        capture_output=True,
        text=True,
        check=False,
        # An empty cache of remote code, and none of what an earlier test left in it.
        env={"PATH": "", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    answer = json.loads(answer.stdout.splitlines()[-1])

    input_ids = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 0, 0, 0]])
    rows, scores = model.recommend(input_ids, top_k=5)
    assert answer["rows"] == rows.tolist()
    torch.testing.assert_close(torch.tensor(answer["scores"]), scores, rtol=1e-5, atol=1e-6)
    loss = model(input_ids, labels=torch.tensor([[1, 4, 1, 5, 9], [7, 6, -100, -100, -100]])).loss
    assert answer["loss"] == pytest.approx(loss.item(), rel=1e-5)
    # What was loaded as remote code can be shared on, and is known to the package again.
    again = AutoModel.from_pretrained(tmp_path / "saved again")
    assert type(again) is type(model)
