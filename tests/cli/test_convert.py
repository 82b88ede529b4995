import pytest
import torch
from transformers import AutoModel

from hf_seqrec.cli.convert import main
from tests.checkpoints.convert.authors_checkpoints import state_dict_of
from tests.models.reference_outputs import reference_cases


def test_says_what_it_did(tmp_path, capsys):
    cases = reference_cases("sasrec")["argvalues"]
    torch.save(state_dict_of(next(case for case in cases if case["name"] == "pre, full")), tmp_path / "x.pth")
    fields = ["num_attention_heads=2", "normalization=pre"]
    main([str(tmp_path / "x.pth"), "--output", str(tmp_path / "out"), "--config", *fields])
    printed = capsys.readouterr().out
    assert "SASRec (pmixer/SASRec.pytorch) -> sasrec, 23 items" in printed
    assert "normalization = 'pre' (given)" in printed
    assert "the keys' third: adds the same to all scores of a query" in printed
    assert "No catalog.parquet was written" in printed
    assert "--item_ids rows" in printed
    assert AutoModel.from_pretrained(tmp_path / "out").config.normalization == "pre"


@pytest.mark.parametrize("options", [["--config", "heads"], ["--config", "heads=["]])
def test_malformed_fields(tmp_path, options):
    with pytest.raises(ValueError, match="`--config`"):
        main([str(tmp_path / "x.pth"), "--output", str(tmp_path / "out"), *options])


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"notes\.txt is not a checkpoint"):
        main([str(tmp_path / "notes.txt"), "--output", str(tmp_path / "out")])
