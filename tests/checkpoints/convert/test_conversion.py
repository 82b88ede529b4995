import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel

from hf_seqrec.checkpoints.convert.conversion import convert_checkpoint
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.data.catalog import Catalog
from tests.checkpoints.convert.authors_checkpoints import save_as_recbole, state_dict_of
from tests.models.reference_outputs import reference_cases


def case_of(model_type, name=None):
    return next(case for case in reference_cases(model_type)["argvalues"] if name in (None, case["name"]))


def given(case, *names):
    return {name: case["config"][name] for name in names}


# Cases whose arithmetic is that of the authors' code as it stands, and the fields that no weight shows.
CASES = [
    *((case, []) for case in reference_cases("mamba4rec")["argvalues"]),
    (case_of("mlsa4rec", "causal=False"), ["num_attention_heads", "max_position_embeddings"]),
    *((case, []) for case in reference_cases("gru4rec")["argvalues"]),
    (case_of("bert4rec", "RecBole"), ["num_attention_heads"]),
    *((case, ["num_attention_heads", "normalization"]) for case in reference_cases("sasrec")["argvalues"]),
    *((case, []) for case in reference_cases("recmamba")["argvalues"]),
    (case_of("moematrrec", "causal=False"), ["num_attention_heads"]),
]


@torch.no_grad()
def answer(model, case):
    input_ids = torch.tensor(case["input_ids"])
    if case["positions"] == "next":
        return model(input_ids).logits[:, 1:]
    mask = input_ids > 0
    if case["positions"] == "last":
        mask &= mask.long().cumsum(dim=1) == mask.sum(dim=1, keepdim=True)
    return model(input_ids, output_logits=False).last_hidden_state[mask]


@pytest.fixture
def recbole(tmp_path, monkeypatch):
    """Return a checkpoint of Mamba4Rec as RecBole saves it."""
    case = case_of("mamba4rec", "2 layers")
    return save_as_recbole(
        monkeypatch,
        tmp_path / "Mamba4Rec-Nov-21-2026_10-00-00.pth",
        state_dict_of(case),
        model="Mamba4Rec",
        hidden_size=16,
        num_layers=2,
        d_state=4,
        d_conv=4,
        expand=2,
        dropout_prob=0.4,
        MAX_ITEM_LIST_LENGTH=50,
    )


@pytest.mark.parametrize(("case", "fields"), CASES, ids=[f"{case['model_type']}-{case['name']}" for case, _ in CASES])
def test_a_converted_checkpoint_answers_as_the_authors_code(case, fields, tmp_path):
    """The checkpoint has the authors' names; the expected numbers are what their own code answered with it."""
    source = tmp_path / "checkpoint.pth"
    torch.save(state_dict_of(case), source)
    conversion = convert_checkpoint(source, tmp_path / "converted", config=given(case, *fields))
    assert conversion.source.model_type == case["model_type"]
    expected = torch.tensor(case["scores" if case["positions"] == "next" else "states"])
    torch.testing.assert_close(answer(conversion.model, case), expected, rtol=0, atol=1e-5)
    loaded, report = AutoModel.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(answer(loaded, case), answer(conversion.model, case))


class TestRecBole:
    def test_the_folder(self, recbole, tmp_path):
        conversion = convert_checkpoint(recbole, tmp_path / "out", item_ids="rows")
        model, catalog = load_checkpoint(tmp_path / "out")
        assert catalog.item_ids.to_pylist() == [str(row) for row in range(1, 20)]
        assert (model.config.hidden_dropout_prob, model.config.max_position_embeddings) == (0.4, 50)
        assert model.config.auto_map["AutoModel"] == "modeling_mamba4rec.Mamba4Rec"
        card = (tmp_path / "out/README.md").read_text()
        assert "Nothing was measured with this checkpoint." in card
        assert "Converted by `hf-seqrec convert` from `Mamba4Rec-Nov-21-2026_10-00-00.pth`" in card
        assert not [name for name in os.listdir(tmp_path / "out") if name.endswith((".pth", ".bin", ".pkl"))]
        torch.testing.assert_close(
            answer(model, case_of("mamba4rec", "2 layers")),
            torch.tensor(case_of("mamba4rec", "2 layers")["states"]),
            rtol=0,
            atol=1e-5,
        )
        assert conversion.fields["hidden_dropout_prob"] == (0.4, "its hyper-parameters")

    def test_nothing_of_the_authors_is_imported(self, recbole, tmp_path):
        before = set(sys.modules)
        convert_checkpoint(recbole, tmp_path / "out")
        assert not {name for name in set(sys.modules) - before if name.startswith(("recbole", "mamba4rec"))}

    def test_the_padding_row_is_cleared_where_no_item_sees_it(self, recbole, tmp_path):
        conversion = convert_checkpoint(recbole, tmp_path / "out")
        assert not conversion.model.item_embeddings.weight[0].any()
        assert conversion.model.item_embeddings.weight[1:].any(dim=1).all()
        assert "row 0, of the padding, set to zero" in str(conversion)

    def test_hyper_parameters_of_another_checkpoint(self, tmp_path, monkeypatch):
        path = save_as_recbole(
            monkeypatch, tmp_path / "x.pth", state_dict_of(case_of("mamba4rec")), model="Mamba4Rec", hidden_size=64
        )
        with pytest.raises(
            ValueError, match=r"`hidden_size` is 64 \(its hyper-parameters\), but 16 \(weights\)\. The two are not"
        ):
            convert_checkpoint(path, tmp_path / "out")

    def test_sasrec_of_recbole_is_another_model(self, tmp_path, monkeypatch):
        weights = state_dict_of(case_of("bert4rec", "RecBole"))
        weights = {name: weight for name, weight in weights.items() if not name.startswith("output_")}
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", weights, model="SASRec", n_heads=2)
        with pytest.raises(ValueError, match=r"SASRec as RecBole has it, which is another architecture.*pmixer"):
            convert_checkpoint(path, tmp_path / "out")
        torch.save(weights, path)
        with pytest.raises(ValueError, match="SASRec as RecBole has it"):
            convert_checkpoint(path, tmp_path / "out")

    def test_bert4rec_of_an_earlier_recbole_lacks_weights(self, tmp_path, monkeypatch):
        weights = state_dict_of(case_of("bert4rec", "RecBole"))
        weights = {name: weight for name, weight in weights.items() if not name.startswith("output_")}
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", weights, model="BERT4Rec", n_heads=2)
        with pytest.raises(ValueError, match=r"lacks what makes output_bias, transform\.weight, transform\.bias"):
            convert_checkpoint(path, tmp_path / "out")

    def test_bert4rec_with_another_activation(self, tmp_path, monkeypatch):
        path = save_as_recbole(
            monkeypatch,
            tmp_path / "x.pth",
            state_dict_of(case_of("bert4rec", "RecBole")),
            model="BERT4Rec",
            n_heads=2,
            hidden_act="relu",
        )
        with pytest.raises(ValueError, match=r"cannot be carried by `bert4rec`: its feed-forward networks use 'relu'"):
            convert_checkpoint(path, tmp_path / "out")

    def test_another_model_of_recbole(self, tmp_path, monkeypatch):
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", {"item_embedding.weight": torch.ones(5, 4)}, "GRU4Rec")
        with pytest.raises(ValueError, match=r"not a complete `gru4rec`\. It lacks what makes layers\.0\.gru"):
            convert_checkpoint(path, tmp_path / "out")


def test_unused_modules_are_left_out_and_listed(tmp_path):
    torch.save(state_dict_of(case_of("mlsa4rec")), tmp_path / "x.pth")
    conversion = convert_checkpoint(
        tmp_path / "x.pth", tmp_path / "out", config={"num_attention_heads": 4, "max_position_embeddings": 12}
    )
    left_out = {weight.theirs for weight in conversion.moved if not weight.ours}
    assert {name.split(".")[-2] for name in left_out if name.startswith("models")} == {
        "pos_q_linear",
        "pos_k_linear",
        "pos_ln",
        "dense",
    }
    assert {name for name in left_out if not name.startswith("models")} == {
        f"mamba.{name}"
        for name in (
            "A_log",
            "D",
            "in_proj.weight",
            "conv1d.weight",
            "conv1d.bias",
            "x_proj.weight",
            "dt_proj.weight",
            "dt_proj.bias",
            "out_proj.weight",
        )
    }
    assert "left out (never used by the authors' forward pass)" in str(conversion)
    # Here the padding counts, so its row stays as it is.
    assert conversion.model.item_embeddings.weight[0].any()


class TestRefusals:
    @pytest.fixture
    def gru(self):
        return state_dict_of(case_of("gru4rec"))

    def refuses(self, tmp_path, weights, match, **options):
        torch.save(weights, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=match):
            convert_checkpoint(tmp_path / "x.pth", tmp_path / "out", **options)
        assert os.listdir(tmp_path) == ["x.pth"]

    def test_unknown_weights(self, gru, tmp_path):
        weights = gru | {"attention.weight": torch.ones(2, 2), "attention.bias": torch.ones(2)}
        self.refuses(tmp_path, weights, r"does not have: attention\.weight, attention\.bias\. It is of a changed")

    def test_missing_weights(self, gru, tmp_path):
        del gru["dense.bias"]
        self.refuses(tmp_path, gru, r"lacks what makes out_proj\.bias\.")

    def test_a_layer_too_many(self, gru, tmp_path):
        weights = gru | {"gru_layers.weight_ih_l7": torch.ones(36, 12)}
        self.refuses(tmp_path, weights, r"lacks what makes .*layers\.1\.gru.* asks for: gru_layers\.weight_ih_l7")

    def test_wrong_shapes(self, gru, tmp_path):
        weights = gru | {"dense.bias": torch.ones(9)}
        self.refuses(tmp_path, weights, r"dense\.bias makes out_proj\.bias \(9,\), expected \(8,\)")

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, gru, tmp_path, number):
        gru["dense.weight"][2, 1] = number
        self.refuses(tmp_path, gru, r"NaN or infinite numbers in dense\.weight: its training diverged")

    @pytest.mark.parametrize("weight", [torch.ones(8, dtype=torch.int8), torch.ones(8).to_sparse()])
    def test_weights_of_another_kind(self, gru, tmp_path, weight):
        gru["dense.bias"] = weight
        self.refuses(tmp_path, gru, r"no arrays of floating-point numbers: dense\.bias")

    def test_not_what_it_is_said_to_be(self, gru, tmp_path):
        self.refuses(
            tmp_path,
            gru,
            r"`model_type` says 'mamba4rec', but these are weights of GRU4Rec of RecBole .* which is 'gru4rec' here",
            model_type="mamba4rec",
        )

    def test_mambarec_is_recmamba(self, tmp_path):
        weights = state_dict_of(case_of("recmamba"))
        self.refuses(
            tmp_path,
            weights,
            "its repository calls MambaRec, and with which the numbers of that name were made",
            model_type="mambarec",
        )

    def test_nobodys_weights(self, tmp_path):
        weights = {"embeddings.weight": torch.ones(3, 2)}
        self.refuses(tmp_path, weights, r"no code that can be converted: embeddings\.weight\. Known: Mamba4Rec \(chen")

    def test_sasmambarec_with_two_scalars(self, tmp_path):
        weights = state_dict_of(case_of("moematrrec", "causal=False"))
        for name in ("mamba_weight.weight", "mamba_weight.bias"):
            weights.pop(name)
        weights |= {"mamba_weight": torch.tensor(0.75), "attention_weight": torch.tensor(0.25)}
        torch.save(weights, tmp_path / "checkpoint.pth")
        conversion = convert_checkpoint(
            tmp_path / "checkpoint.pth", tmp_path / "out", config={"num_attention_heads": 2}, item_ids="rows"
        )
        assert (conversion.model.config.gate, conversion.model.config.causal) == ("constant", False)
        layer = conversion.model.layers[0]
        assert (layer.mamba_weight.item(), layer.attention_weight.item()) == (0.75, 0.25)
        assert "two learned scalars" in (tmp_path / "out/README.md").read_text()

    def test_a_relative_of_sasmambarec(self, tmp_path):
        weights = state_dict_of(case_of("moematrrec"))
        weights["gating_network.0.weight"] = weights.pop("mamba_weight.weight").repeat(2, 1)
        weights["gating_network.0.bias"] = weights.pop("mamba_weight.bias").repeat(2)
        self.refuses(tmp_path, weights, r"does not have: attention_layer\.in_proj_weight")

    @pytest.mark.parametrize("name", ["pos_emb.weight", "item_emb.weight"])
    def test_sasrec_of_earlier_code(self, tmp_path, name):
        weights = state_dict_of(case_of("sasrec"))
        weights[name][0] = 0.5
        self.refuses(
            tmp_path,
            weights,
            "cannot be carried by `sasrec`: row 0 of its `pos_emb` or `item_emb` is not zero",
            config={"num_attention_heads": 1, "normalization": "query"},
        )

    def test_an_arrangement_that_nobody_said(self, tmp_path):
        self.refuses(
            tmp_path,
            state_dict_of(case_of("sasrec")),
            r'`num_attention_heads`, `normalization` cannot be seen .*--config num_attention_heads=.*"query" for',
        )

    def test_heads_that_nobody_said(self, tmp_path):
        weights = state_dict_of(case_of("moematrrec"))
        self.refuses(tmp_path, weights, "`num_attention_heads` cannot be seen in the weights of SASmambaRec")

    @pytest.mark.parametrize(
        ("config", "match"),
        [
            ({"hidden_size": 9}, r"`hidden_size` is 9 \(given\), but 8 \(weights\)\. Leave it out of `config`"),
            ({"width": 9}, "`config` has width, which GRU4RecConfig does not have"),
            ({"hidden_dropout_prob": "high"}, "do not fit GRU4RecConfig"),
            ({"hidden_dropout_prob": 1.5}, r"`hidden_dropout_prob` must be in \[0, 1\), got 1\.5"),
        ],
    )
    def test_configurations(self, gru, tmp_path, config, match):
        self.refuses(tmp_path, gru, match, config=config)

    def test_another_arithmetic(self, tmp_path):
        weights = state_dict_of(case_of("moematrrec"))
        self.refuses(
            tmp_path,
            weights,
            r"`causal` is True \(given\), but False \(as its code computes\)",
            config={"num_attention_heads": 2, "causal": True},
        )

    def test_item_ids_of_other_data(self, gru, tmp_path):
        Catalog.from_items(["a", "b"]).save(tmp_path / "ids")
        torch.save(gru, tmp_path / "x.pth")
        with pytest.raises(ValueError, match="has 2 item ids, but the model has 23 items"):
            convert_checkpoint(tmp_path / "x.pth", tmp_path / "out", item_ids=tmp_path / "ids")
        assert not (tmp_path / "out").exists()


class TestFolder:
    @pytest.fixture
    def source(self, tmp_path):
        torch.save(state_dict_of(case_of("gru4rec")), tmp_path / "x.pth")
        return tmp_path / "x.pth"

    def test_other_files_are_not_touched(self, source, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.tex").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match="`output` must be new or an empty folder"):
                convert_checkpoint(source, tmp_path / "out", overwrite=overwrite)
        assert os.listdir(tmp_path / "out") == ["thesis.tex"]

    def test_a_checkpoint_is_replaced_on_request(self, source, tmp_path):
        (tmp_path / "out").mkdir()
        convert_checkpoint(source, tmp_path / "out", item_ids="rows")
        with pytest.raises(FileExistsError, match="replace the checkpoint with `--overwrite`"):
            convert_checkpoint(source, tmp_path / "out")
        assert (tmp_path / "out/catalog.parquet").is_file()
        convert_checkpoint(source, tmp_path / "out", overwrite=True)
        assert not (tmp_path / "out/catalog.parquet").exists()
        assert sorted(os.listdir(tmp_path)) == ["out", "x.pth"]

    def test_nothing_half_written(self, source, tmp_path, monkeypatch):
        def no_space(*args, **kwargs):
            raise OSError("no space left on device")

        monkeypatch.setattr("hf_seqrec.checkpoints.convert.conversion.write_model_card", no_space)
        with pytest.raises(OSError, match="no space left"):
            convert_checkpoint(source, tmp_path / "out")
        assert os.listdir(tmp_path) == ["x.pth"]

    def test_item_ids_in_the_checkpoint(self, source, tmp_path):
        ids = ["[PAD]", *(f"id-{row}" for row in range(1, 24))]
        plain = {"state_dict": torch.load(source), "config": {"model": "GRU4Rec"}, "item_ids": ids}
        torch.save(plain, source)
        conversion = convert_checkpoint(source, tmp_path / "out")
        assert conversion.catalog.decode([1, 23]) == ["id-1", "id-23"]
        assert pq.read_table(tmp_path / "out/catalog.parquet")["item_id"].to_pylist() == ids[1:]

    def test_weights_of_a_wrapped_model_in_half_precision(self, source, tmp_path):
        weights = torch.load(source)
        torch.save({f"module.{name}": weight.half() for name, weight in weights.items()}, source)
        model = convert_checkpoint(source, tmp_path / "out").model
        assert model.dtype == torch.float32
        assert torch.equal(model.out_proj.bias, weights["dense.bias"].half().float())


class TestNotes:
    """What SASRec's descendants write into the name of a checkpoint, and into `args.txt` beside it."""

    NAME = "SASRec.epoch=20.lr=0.001.layer=2.head=2.hidden=8.maxlen=8.pth"
    ARGS = "dropout_rate,0.3\nhidden_units,8\nmaxlen,8\nnum_blocks,2\nnum_heads,2\n"

    def convert(self, tmp_path, args, **options):
        torch.save(state_dict_of(case_of("sasrec", "pre, full")), tmp_path / self.NAME)
        (tmp_path / "args.txt").write_text(args)
        return convert_checkpoint(tmp_path / self.NAME, tmp_path / "out", **options).model.config

    @pytest.mark.parametrize(
        ("line", "normalization"), [("", "query"), ("norm_first,True", "pre"), ("norm_first,False", "post")]
    )
    def test_args_txt(self, tmp_path, line, normalization):
        config = self.convert(tmp_path, self.ARGS + line)
        assert (config.normalization, config.num_attention_heads) == (normalization, 2)
        assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.3

    def test_args_txt_of_another_run(self, tmp_path):
        with pytest.raises(ValueError, match="`normalization` cannot be seen"):
            self.convert(tmp_path, self.ARGS.replace("maxlen,8", "maxlen,50"))

    def test_what_is_given_wins(self, tmp_path):
        config = self.convert(tmp_path, self.ARGS, config={"normalization": "pre", "num_attention_heads": 4})
        assert (config.normalization, config.num_attention_heads) == ("pre", 4)

    def test_a_name_that_lies(self, tmp_path):
        torch.save(state_dict_of(case_of("sasrec")), tmp_path / self.NAME.replace("hidden=8", "hidden=50"))
        with pytest.raises(ValueError, match=r"`hidden_size` is 50 \(its hyper-parameters\), but 8 \(weights\)"):
            convert_checkpoint(tmp_path / self.NAME.replace("hidden=8", "hidden=50"), tmp_path / "out")


def test_the_package_does_not_import_conversion():
    script = (
        "import sys, hf_seqrec; print(any(name.startswith('hf_seqrec.checkpoints.convert') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
