import pyarrow as pa
import pytest

from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.read_log import InteractionsArguments, read_interactions, select_rows


def kept(engine, column, condition, tmp_path, as_text=None):
    if as_text is None:
        raw = RawFile.open(
            pa.table(
                {"user": ["u"] * len(column), "item": range(len(column)), "ts": 1 * [0] * len(column), "x": column}
            )
        )
    else:
        path = tmp_path / f"log.{as_text}"
        rows = [f'{{"user": "u", "item": {n}, "ts": 0, "x": {value}}}' for n, value in enumerate(column)]
        lines = [f"u,{n},0,{value}" for n, value in enumerate(column)]
        path.write_text("\n".join(rows if as_text == "jsonl" else ["user,item,ts,x", *lines]))
        raw = RawFile.open(path)
    arguments = InteractionsArguments(where=[f"x={condition}"])
    events = select_rows(read_interactions(engine, raw, arguments).events, arguments)
    return sorted(int(item) for item in events.to_pyarrow()["item_id"].to_pylist())


@pytest.mark.parametrize("value", ["True", "true", "1", "1.0"])
def test_booleans(engine, tmp_path, value):
    assert kept(engine, [True, False, None], value, tmp_path) == [0]


def test_numbers(engine, tmp_path):
    for condition in ("1", "1.0", "1e0", "true"):
        assert kept(engine, [1.0, 1.5, None], condition, tmp_path) == [0]
        assert kept(engine, [0, 1, 2], condition, tmp_path) == [1]
    assert kept(engine, [1.0, 1.5], "1.5", tmp_path) == [1]


def test_text(engine, tmp_path):
    assert kept(engine, ["007", "7", "7.0"], "7", tmp_path) == [1, 2]
    assert kept(engine, ["True", "False", "true"], "true", tmp_path, "csv") == [0, 2]
    assert kept(engine, ["true", "false", "1"], "True", tmp_path, "jsonl") == [0]
    assert kept(engine, ["1.0", "1", "0"], "1", tmp_path, "jsonl") == [0, 1]
    assert kept(engine, ["a=b", "a"], "a=b", tmp_path) == [0]


@pytest.mark.parametrize(("column", "expected"), [([True], "true or false"), ([1.5], "a number")])
def test_a_value_that_cannot_be(engine, tmp_path, column, expected):
    with pytest.raises(ValueError, match=f"`where` must compare `x` of the table with {expected}, got 'often'"):
        kept(engine, column, "often", tmp_path)
