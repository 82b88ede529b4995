"""Every model's scores by onnxruntime: of other histories, lengths and padding than it was exported with."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec.checkpoints.export_onnx import Scorer, export_onnx
from hf_seqrec.cli.export_onnx import main
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.models.op_selective_scan import selective_scan_reference

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

from hf_seqrec.ops.onnx_gru import ExportableGRU  # noqa: E402
from hf_seqrec.ops.onnx_scan import selective_scan as exportable_scan  # noqa: E402

# The others take longer than all the rest of this file, with nothing that these do not have: `make test-all`.
QUICK = ("gru4rec", "recmamba", "bert4rec")
SLOW = tuple(model_type for model_type in hf_seqrec.MODEL_TYPES if model_type not in QUICK)
SWITCHES = (
    ("sasrec", {"attend_to_padding": True, "position_order": "last"}),
    ("moematrrec", {"causal": False}),
    ("mlsa4rec", {"causal": False, "max_position_embeddings": 9}),
)


def model_of(model_type, **fields):
    set_seed(0)
    config_class = hf_seqrec.config_class(model_type)
    if config_class(vocab_size=50).max_position_embeddings is not None:
        fields.setdefault("max_position_embeddings", 9)
    fields = {"vocab_size": config_class.vocab_size_for(30), "hidden_size": 8, "num_attention_heads": 2, **fields}
    if not hasattr(config_class, "num_attention_heads"):
        del fields["num_attention_heads"]
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **fields)).eval()
    with torch.no_grad():
        # Scores of units, not of thousandths: 1e-4 shall be little.
        model.item_embeddings.weight.mul_(100)
    return model


def scores_of(path, input_ids, attention_mask):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
    (scores,) = session.run(None, inputs)
    return torch.from_numpy(scores)


def check_export(model, tmp_path):
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path) < 1e-4
    # By hand, not only by export_onnx's own comparison. 0 and 9 stand at masked places, the rows are of 1 to 8 items.
    input_ids = torch.tensor([[4, 9, 9, 0, 0, 0, 0, 0], [7, 1, 30, 2, 2, 5, 8, 11], [9, 9, 9, 9, 9, 3, 4, 5]])
    attention_mask = torch.tensor([[1] + [0] * 7, [1] * 8, [0] * 5 + [1] * 3])
    scores = scores_of(path, input_ids, attention_mask)
    with torch.no_grad():
        expected = torch.cat(
            [model(row[mask == 1][None]).logits for row, mask in zip(input_ids, attention_mask, strict=True)]
        )
    assert scores.shape == (3, 31)
    assert torch.isneginf(scores[:, 0]).all()
    assert expected[:, 1:].std() > 0.1
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:], rtol=0, atol=1e-4)
    return path


@pytest.mark.parametrize("model_type", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_scores_are_those_of_torch(model_type, tmp_path):
    check_export(model_of(model_type), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "switch"), SWITCHES)
def test_the_authors_arithmetic_can_be_exported_too(model_type, switch, tmp_path):
    check_export(model_of(model_type, **switch), tmp_path)


def test_command_line_exports_a_checkpoint_and_notes_its_catalog(tmp_path, capsys):
    model = model_of("gru4rec")
    catalog = Catalog.from_items([f"id-{row}" for row in range(1, 31)])
    model.save_pretrained(tmp_path / "checkpoint")
    catalog.save(tmp_path / "checkpoint")
    path = tmp_path / "exports" / "model.onnx"
    main([str(tmp_path / "checkpoint"), "--output", str(path)])
    assert "GRU4Rec, 30 items" in capsys.readouterr().out
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    noted = session.get_modelmeta().custom_metadata_map
    assert noted["hf_seqrec.model_type"] == "gru4rec"
    assert noted["hf_seqrec.catalog"] == catalog.fingerprint()
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]


def test_a_history_longer_than_the_model_is_cut_as_recommend_cuts_it():
    model = model_of("sasrec", max_position_embeddings=4)
    input_ids = torch.tensor([[5, 6, 7, 8, 9, 10], [1, 2, 3, 0, 0, 0]])
    with torch.no_grad():
        scores = Scorer(model)(input_ids, (input_ids != 0).long())
    rows, best = model.recommend(input_ids, top_k=3, exclude_seen=False)
    torch.testing.assert_close(scores.gather(1, rows), best)


def test_weights_in_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"float32.*bfloat16.*model.float"):
        export_onnx(model_of("gru4rec").bfloat16(), tmp_path / "model.onnx")


def test_what_cannot_be_exported_is_said_and_leaves_nothing(tmp_path):
    model = model_of("gru4rec")
    # A number that depends on the data: no graph has it.
    encode = model.encode
    model.encode = lambda embeds, context: encode(embeds, context) * float(embeds.sum())
    with pytest.raises(ValueError, match="This GRU4Rec cannot be exported to ONNX"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_scores_that_differ_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_seqrec.checkpoints.export_onnx.largest_difference", lambda *_: float("nan"))
    with pytest.raises(ValueError, match="differ from those of torch by nan"):
        export_onnx(model_of("gru4rec"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_scan_for_export_is_the_definition():
    generator = torch.Generator().manual_seed(0)
    b, l, d, n = 3, 11, 4, 5
    x, delta, z = torch.randn(3, b, l, d, generator=generator).unbind()
    B, C = torch.randn(2, b, l, n, generator=generator).unbind()
    A = -torch.rand(d, n, generator=generator)
    D, delta_bias = torch.randn(2, d, generator=generator).unbind()
    state = torch.randn(b, d, n, generator=generator)
    arguments = (x, delta, A, B, C, D, z, delta_bias, True, state, torch.tensor([11, 4, 0]))
    for result, expected in zip(exportable_scan(*arguments), selective_scan_reference(*arguments), strict=True):
        torch.testing.assert_close(result, expected)
    for result, expected in zip(
        exportable_scan(*arguments[:5]), selective_scan_reference(*arguments[:5]), strict=True
    ):
        torch.testing.assert_close(result, expected)


def test_the_gru_for_export_is_torchs():
    gru = torch.nn.GRU(3, 5, bias=False, batch_first=True)
    inputs, state = torch.from_numpy(np.random.randn(2, 7, 3)).float(), torch.randn(1, 2, 5)
    for first in (None, state):
        torch.testing.assert_close(ExportableGRU(gru)(inputs, first)[0], gru(inputs, first)[0])
