import pytest

from hf_seqrec.cli.build import main
from hf_seqrec.data.sequences import load_sequences

LOG = "who,what,ts\na,x,1\na,y,2\na,x,3\nb,x,1\nc,x,1\nc,y,2\nc,z,3\n"


@pytest.mark.parametrize("raw", [[], ["--raw"]], ids=["positional", "option"])
def test_a_log_with_options(tmp_path, write_log, capsys, raw):
    log = write_log("log.csv", LOG)
    films = write_log("films.csv", "item,film\nx,Xanadu\ny,Yentl\n")
    options = ["--user_column", "who", "--item_column", "what", "--min_item_events", "2", "--min_user_events", "2"]
    items = ["--items", str(films), "--title_column", "film"]
    main([*raw, str(log), "--output", str(tmp_path / "out"), *options, *items])
    printed = capsys.readouterr().out
    assert "2 users / 2 items / 5 interactions" in printed
    assert "1 users have fewer than three events: kept for training, not evaluated." in printed
    assert load_sequences(tmp_path / "out").catalog.titles == ["Xanadu", "Yentl"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"hf-seqrec build {' '.join([*raw, 'log.csv'])} --output out --user_column who" in card


def test_several_files_are_one_log(tmp_path, write_log, capsys):
    logs = [str(write_log(f"{day}.csv", f"user,item,ts\na,i{day},{day}\n")) for day in (1, 2, 3)]
    main([*logs, "--output", str(tmp_path / "out")])
    assert "1 users / 3 items / 3 interactions" in capsys.readouterr().out


def test_bad_input(tmp_path, write_log):
    log = write_log("log.csv", "user,item,ts\na,x,1\na,y,soon\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 3: `ts` must be a time .*, got 'soon'\."):
        main([str(log), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_public_dataset_is_named_first(tmp_path):
    with pytest.raises(ValueError, match=r"must come first: `hf-seqrec build ml-1m \.\.\.`"):
        main(["--output", str(tmp_path / "out"), "ml-1m"])


def test_synthetic_histories_and_their_best(tmp_path, capsys):
    options = ["--n_users", "100", "--n_items", "200", "--seed", "3"]
    main(["synthetic", "--output", str(tmp_path / "out"), *options])
    sequences = load_sequences(tmp_path / "out")
    assert sequences.n_users == 100
    assert sequences.statistics["source"]["seed"] == 3
    assert f"best reachable {sequences.statistics['reachable']['hr@10']:.4f}" in capsys.readouterr().out
