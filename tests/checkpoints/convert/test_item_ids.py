import json

import pytest

from hf_seqrec.checkpoints.convert.item_ids import make_catalog, read_catalog
from hf_seqrec.data.catalog import Catalog

IDS = ["b-7", "a", "003"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.txt", "b-7\na\n003\n"),
        ("ids.txt", "\ufeff[PAD]\nb-7\na\n003"),
        ("ids.csv", 'title,item_id\n"x, y",b-7\n,a\nz,003\n'),
        ("ids.tsv", "item_id\ttitle\nb-7\t\na\tx\n003\ty\n"),
        ("ids.json", json.dumps(IDS)),
        ("ids.json", json.dumps(["[PAD]", *IDS])),
    ],
)
def test_files(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_catalog(tmp_path / name, 3).decode([1, 2, 3]) == IDS


def test_a_catalog_keeps_its_columns(tmp_path):
    Catalog.from_items(IDS, count=[3, 2, 1], title=["x", "y", "z"]).save(tmp_path)
    for path in (tmp_path, tmp_path / "catalog.parquet"):
        catalog = read_catalog(path, 3)
        assert catalog.describe([3]) == ["z"]
        assert catalog.counts.tolist() == [3, 2, 1]


def test_the_numbers_of_the_rows():
    assert read_catalog("rows", 3).decode([1, 2, 3]) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("ids.txt", "a\nb\n", "has 2 item ids, but the model has 3 items"),
        ("ids.txt", "a\nb\nc\nd\n", "has 4 item ids"),
        ("ids.txt", "a\nb\na\n", "`item_id` must not repeat, found 'a'"),
        ("ids.csv", "item\na\nb\nc\n", "must have a column `item_id`, found item"),
        ("ids.csv", "", "must have a column `item_id`, found nothing"),
        ("ids.csv", "item_id,n\n,1\na,2\nb,3\n", "must not be empty"),
        ("ids.json", "[1, 2", "is not readable as its ending says"),
        ("ids.json", '{"a": 1}', "must be a list of texts or integers"),
        ("ids.json", "[1.5, 2, 3]", "must be a list of texts or integers"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, text, match):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        read_catalog(tmp_path / name, 3)


def test_bytes(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not readable"):
        read_catalog(tmp_path / "ids.txt", 3)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="`item_ids` must be 'rows', a folder with a catalog, or a file"):
        read_catalog(tmp_path / "ids.txt", 3)


def test_integers():
    assert make_catalog([10, 20], 2, "x").decode([2]) == ["20"]
