import gzip

import pytest

from hf_seqrec.ingest.log_files import RawFile


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


def lines(file, n):
    return [int(file.place(row).removeprefix(f"{file.paths[0]}, line ")) for row in range(n)]


def test_records_and_lines(write_log):
    # Records may span lines; blank lines are none.
    file = RawFile.open(write_log("log.csv", 'a,b\n1,2\n\n"x\ny",3\n4,5\n'))
    assert lines(file, 3) == [2, 4, 6]
    # A quote in an atomic file is a character.
    file = RawFile.open(write_log("log.inter", 'a:token\tb:token\n"x\t1\ny"\t2\n'))
    assert lines(file, 2) == [2, 3]
    file = RawFile.open(write_log("log.jsonl", '{"a": 1}\n\n{"a": 2}\n'))
    assert lines(file, 2) == [1, 3]


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


def test_several_files_are_one_table(write_log):
    paths = [write_log("a.csv", "u,i\n1,2\n3,4\n"), write_log("b.csv", "u,i\n5,6\n")]
    file = RawFile.open(paths)
    assert (file.name, file.stem, file.columns) == ("a.csv and 1 more", "a", ["u", "i"])
    assert file.place(2) == f"{paths[1]}, line 2"
    with pytest.raises(ValueError, match=r"same columns; a\.csv has u, i, c\.csv has u, j"):
        RawFile.open([paths[0], write_log("c.csv", "u,j\n5,6\n")])
    with pytest.raises(ValueError, match=r"one ending, got \.csv, \.tsv"):
        RawFile.open([paths[0], write_log("c.tsv", "u\ti\n5\t6\n")])


def test_compressed_text(write_log):
    packed = gzip.compress(b"u,i\n1,2\n\n3,4\n")
    file = RawFile.open(write_log("a.csv.gz", packed))
    assert file.columns == ["u", "i"]
    assert lines(file, 2) == [2, 4]
    with pytest.raises(ValueError, match=r"not a whole \.gz file.*Fetch it again"):
        RawFile.open(write_log("b.csv.gz", packed[:9]))
    with pytest.raises(ValueError, match=r"not a whole \.gz file"):
        RawFile.open(write_log("c.csv.gz", "u,i\n1,2\n"))


def test_a_form_that_is_known(write_log):
    path = write_log("ratings.dat", "1::Amélie (2001)::5\n2::X::4\n".encode("latin-1"))
    file = RawFile.delimited(path, ["user", "film", "rating"], delimiter="::", quote="", encoding="latin-1")
    assert not file.header
    assert lines(file, 2) == [1, 2]
    named = RawFile.delimited(write_log("named.dat", "user::film\n1::2\n"), delimiter="::")
    assert (named.columns, named.header) == (["user", "film"], True)
