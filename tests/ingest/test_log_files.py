import bz2
import gzip
import json
import lzma

import pyarrow as pa
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


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("log.csv", "user;item\n", ["user", "item"]),
        ("log.csv", "user\titem\n", ["user", "item"]),
        ("log.tsv", "user,item\n", ["user", "item"]),
        ("log.csv", '"a;b",item\n', ["a;b", "item"]),
        ("log.csv", "user\n", ["user"]),
        ("log.csv", " user ,item , \n", ["user", "item", "Unnamed: 2"]),
        ("log.csv", ",user\n", ["Unnamed: 0", "user"]),
        ("log.json", '\ufeff [\n{"user": 1},\n{"item": [2], "user": 3}]\n', ["user", "item"]),
        ("log.json", '[{"user": 1}, {"item": 2}]', ["user", "item"]),
        ("log.json", '{"user": 1}\n{"item": 2}\n', ["user", "item"]),
    ],
)
def test_headers_as_people_write_them(write_log, name, text, columns):
    assert RawFile.open(write_log(name, text)).columns == columns


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("form", ["csv", "inter", "jsonl", "json"])
def test_every_packing(read_events, write_log, packed, form):
    records = [{"user_id": "ü", "item_id": str(number), "timestamp": number} for number in range(3000)]
    if form in ("jsonl", "json"):
        text = "\n".join(map(json.dumps, records)) if form == "jsonl" else json.dumps(records)
    else:
        types = (":token", ":token", ":float") if form == "inter" else ("", "", "")
        separator = "\t" if form == "inter" else ","
        lines = [separator.join(name + kind for name, kind in zip(records[0], types, strict=True))]
        text = "\n".join([*lines, *(separator.join(map(str, record.values())) for record in records)])
    content = PACKERS[packed](text.encode())
    path = write_log(f"log.{form}{packed}", content)
    assert read_events(path) == [("ü", str(number), number) for number in range(3000)]
    cut = write_log(f"cut.{form}{packed}", content[: len(content) - 20])
    with pytest.raises(ValueError, match=rf"cut\.{form}\{packed} is not a whole \{packed} file"):
        read_events(cut)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"user": 1},\n{"user": ]', r"array of JSON objects; record 2 is not whole"),
        ('[{"user": 1}, 5]', r"array of JSON objects; record 2 is '5'"),
        ('[{"user": 1}', "record 2 is not whole"),
        ('{"user": {"0": "u"}, "item": {"0": "i"}}', r"line 1: each value of this object is an object itself.*orient"),
        ("\n\n", "is empty: it has no records"),
    ],
)
def test_json_that_holds_no_records(write_log, text, message):
    with pytest.raises(ValueError, match=message):
        RawFile.open(write_log("log.json", text))


def test_places_in_an_array(read_events, write_log):
    records = [{"user": "u", "item": "i", "ts": 1}] * 1200 + [{"user": "u", "ts": 1}]
    with pytest.raises(ValueError, match=r"log\.json, record 1201: `item` must not be empty"):
        read_events(write_log("log.json", json.dumps(records)))
    path = write_log("log.json", json.dumps(records)[:-3])
    with pytest.raises(ValueError, match=r"log\.json must be an array of JSON objects; record 1201 is not whole"):
        read_events(path)


def test_a_mark_at_the_beginning(read_events, write_log):
    lines = '\ufeff{"user": "u", "item": "a", "ts": 1}\n{"user": "u", "item": "b", "ts": 2}\n'
    for path in (write_log("log.jsonl", lines), write_log("log.jsonl.gz", gzip.compress(lines.encode()))):
        assert read_events(path) == [("u", "a", 1), ("u", "b", 2)]
