import pytest

from hf_seqrec.data.raw_files import RawFile


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("log.inter", "user_id:token\titem_id:token\trating:float\n", ["user_id", "item_id", "rating"]),
        ("log.csv", 'user,"a, b"\r\n', ["user", "a, b"]),
        ("log.csv", "\ufeffuser,item\n", ["user", "item"]),
        ("log.tsv", "user\titem\n", ["user", "item"]),
        ("LOG.CSV", "user,item\n", ["user", "item"]),
        ("log.jsonl", '{"user": 1}\n\n{"item": 2, "user": 3}\n', ["user", "item"]),
    ],
)
def test_columns(write_log, name, text, columns):
    assert RawFile.open(write_log(name, text)).columns == columns


def test_records_and_lines(write_log):
    # Records may span lines; blank lines are none.
    file = RawFile.open(write_log("log.csv", 'a,b\n1,2\n\n"x\ny",3\n4,5\n'))
    assert [file.place(row) for row in range(3)] == ["line 2", "line 4", "line 6"]
    # A quote in an atomic file is a character.
    file = RawFile.open(write_log("log.inter", 'a:token\tb:token\n"x\t1\ny"\t2\n'))
    assert [file.place(row) for row in range(2)] == ["line 2", "line 3"]
    file = RawFile.open(write_log("log.jsonl", '{"a": 1}\n\n{"a": 2}\n'))
    assert [file.place(row) for row in range(2)] == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.xlsx", "a,b\n", r"must end in one of \.inter.*got log\.xlsx"),
        ("log", "a,b\n", "must end in one of"),
        ("log.csv", "", "is empty"),
        ("log.csv", "a,b,a\n", "found a more than once"),
        ("log.csv", b"a,\xff\n", "must be UTF-8"),
        ("log.jsonl", '{"a": 1}\n{"a": \n', "line 2"),
        ("log.jsonl", "[1, 2]\n", r"line 1 is '\[1, 2\]'"),
        ("log.parquet", "a,b\n", "not a readable Parquet file"),
    ],
)
def test_files_that_cannot_be_read(write_log, name, text, message):
    with pytest.raises(ValueError, match=message):
        RawFile.open(write_log(name, text))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is none"):
        RawFile.open(tmp_path / "log.csv")
