import pytest

from hf_seqrec.cli.extend import main
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.build import build_dataset


@pytest.mark.parametrize("raw", [[], ["--raw"]], ids=["positional", "option"])
def test_yesterday(tmp_path, write_log, capsys, raw):
    old = write_log("old.csv", "user,item,ts\na,x,1\na,y,2\n")
    new = write_log("new.csv", "user,item,ts\na,y,2\na,z,3\nb,x,3\n")
    folder = build_dataset(old, tmp_path / "data")
    command = [*raw, str(new), "--output", str(folder)]
    main(command)
    printed = capsys.readouterr().out
    assert "added new.csv (1 events were there already): 2 users / 3 items / 4 interactions" in printed
    assert load_sequences(folder).catalog.item_ids.to_pylist() == ["x", "y", "z"]
    with pytest.raises(ValueError, match="nothing new: 3 of its events are there already"):
        main(command)
