import pytest

from hf_seqrec.cli.recommend import main
from hf_seqrec.data.catalog import Catalog
from tests.helpers import small_model, walks


@pytest.fixture
def checkpoint(tmp_path):
    small_model(13).save_pretrained(tmp_path)
    walks().catalog.save(tmp_path)
    return str(tmp_path)


def test_prints_titles_ids_and_scores(checkpoint, capsys):
    main([checkpoint, "--history", "id-3", "id-4", "--top_k", "10"])
    printed = capsys.readouterr().out
    assert "Item 3" in printed
    ranking = printed.split("Recommended:")[1]
    assert sorted(line.split()[2] for line in ranking.strip().splitlines()) == sorted(
        str(row) for row in range(1, 13) if row not in (3, 4)
    )
    assert "id-12" in ranking


def test_seen_items_on_request(checkpoint, capsys):
    main([checkpoint, "--history", "id-3", "--top_k", "12", "--include_seen"])
    assert "id-3 " in capsys.readouterr().out.split("Recommended:")[1]


def test_unknown_items_are_counted_and_left_out(checkpoint, capsys):
    main([checkpoint, "--history", "id-3", "id-99", "x"])
    assert "2 of 3 items are not in this model's catalog" in capsys.readouterr().out


def recommended(printed):
    return [line.split(" id ")[1].split()[0] for line in printed.split("Recommended:")[1].strip().splitlines()]


def test_filters(checkpoint, capsys):
    main([checkpoint, "--history", "id-3", "--candidates", "id-3", "id-5", "id-7", "x", "--exclude", "id-7"])
    printed = capsys.readouterr().out
    assert "1 of 4 candidates are not in this model's catalog" in printed
    assert recommended(printed) == ["id-5"]


def test_the_most_popular_where_nothing_is_known(checkpoint, capsys):
    main([checkpoint, "--history", "x", "--top_k", "3"])
    printed = capsys.readouterr().out
    assert "1 of 1 items are not in this model's catalog" in printed
    assert "Recommending the most popular items" in printed
    assert recommended(printed) == ["id-1", "id-2", "id-3"]


def test_through_the_index(checkpoint, capsys):
    pytest.importorskip("faiss", reason="needs the extra ann")
    from hf_seqrec.cli import index

    index.main([checkpoint])
    capsys.readouterr()
    found = []
    for switch in ("--index", "--no-index"):
        main([checkpoint, "--history", "id-3", switch])
        found.append(recommended(capsys.readouterr().out))
    assert found[0] == found[1]
    assert len(found[0]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--history", "id-3", "--top_k", "13"], "`top_k` must be between 1 and the catalog's 12 items"),
        (["--history", "id-3", "--candidates", "x"], "`candidates` must be items of this model's catalog"),
        (["--history", "id-3", "--index"], "has no whole search_index.faiss"),
        ([], "give either `--history` or `--user`"),
        (["--history", "id-3", "--user", "7"], "give either `--history` or `--user`"),
        (["--user", "7"], "`--user` needs the `--dataset`"),
    ],
)
def test_questions_without_an_answer(checkpoint, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([checkpoint, *arguments])


@pytest.mark.parametrize("ids", [["-1", "-i2", "-h3"], ["-h3"], ["--history=-1"]])
def test_ids_that_begin_with_a_dash(tmp_path, capsys, ids):
    small_model(13).save_pretrained(tmp_path)
    Catalog.from_items(["-1", "-i2", "-h3", *map(str, range(9))]).save(tmp_path)
    main([str(tmp_path), *(ids if "=" in ids[0] else ["--history", *ids]), "--top_k", "2"])
    assert f"History, {len(ids)} items" in capsys.readouterr().out
