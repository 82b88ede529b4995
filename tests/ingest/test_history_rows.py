import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def test_lists_of_parquet(read_events, tmp_path):
    table = pa.table({"user_id": ["u", "v"], "item_id": [["a", "b"], ["b", "c", "b"]], "timestamp": [2, 1]})
    pq.write_table(table, tmp_path / "log.parquet")
    expected = [("u", "a", 2), ("u", "b", 2), ("v", "b", 1), ("v", "c", 1), ("v", "b", 1)]
    assert read_events(tmp_path / "log.parquet") == expected
    assert read_events(table) == expected


def test_lists_of_times(read_log, tmp_path):
    moments = [[datetime.datetime(1970, 1, 1, 0, 0, second) for second in seconds] for seconds in ((3, 1), (2,))]
    for times in ([[3, 1], [2]], [["3", "1"], ["2"]], moments):
        table = pa.table({"user": [1, 2], "item": [[10.0, 7.0], [10.0]], "ts": times})
        pq.write_table(table, tmp_path / "log.parquet")
        events = read_log(table).events.order_by("file_order").to_pyarrow()
        assert events["item_id"].to_pylist() == ["10", "7", "10"]
        assert events["time"].to_pylist() == [3, 1, 2]
    table = pa.table({"user": [1, 2], "item": [[10, 7], [10]], "ts": [[3, 1], [2, 5]]})
    with pytest.raises(ValueError, match="the table, row 2: `ts` must have as many times as there are items"):
        read_log(table)


def test_sequences_of_recbole(read_events, write_log):
    header = "user_id:token\titem_id:token_seq\ttimestamp:float\n"
    path = write_log("log.inter", header + "1\t11 12  13\t5\n2\t 11\t6\n")
    assert read_events(path) == [("1", "11", 5), ("1", "12", 5), ("1", "13", 5), ("2", "11", 6)]
    # Its benchmark files: the items before that of the row.
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    path = write_log("log.test.inter", header + "1\t11 12\t13\t5\n2\t21\t22\t7\n")
    assert [item for _, item, _ in read_events(path)] == ["11", "12", "13", "21", "22"]


def test_lists_of_json(read_events, write_log):
    records = [{"user": 1, "item": [11, "12"], "ts": 5}, {"user": 2, "item": [11], "ts": 6}]
    expected = [("1", "11", 5), ("1", "12", 5), ("2", "11", 6)]
    assert read_events(write_log("log.jsonl", "\n".join(map(json.dumps, records)))) == expected
    assert read_events(write_log("log.json", json.dumps(records))) == expected


def test_a_history_that_grows_is_refused(read_events, write_log):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    path = write_log("log.inter", header + "1\t11 12\t13\t5\n1\t11 12 13\t14\t6\n2\t21\t22\t7\n")
    with pytest.raises(ValueError, match=r"log\.inter, line 3: user '1' has another row before it.*whole history"):
        read_events(path)


def test_missing_items_are_malformed_rows(read_log, read_events, write_log):
    header = "user_id:token\titem_id:token_seq\ttimestamp:float\n"
    path = write_log("log.inter", header + "1\t11\t5\n2\t\t6\n3\t11\tsoon\n")
    with pytest.raises(ValueError, match=r"log\.inter, line 3: `item_id` must not be empty"):
        read_events(path)
    assert read_events(path, on_bad_rows="skip") == [("1", "11", 5)]
    table = pa.table({"user": ["u", "v"], "item": [["a", "b"], ["c", None]], "ts": [1, 2]})
    with pytest.raises(ValueError, match=r"the table, row 2: `item` must not be empty"):
        read_events(table)


def test_a_list_of_users(read_events):
    table = pa.table({"user": [["u"]], "item": [["a"]], "ts": [1]})
    with pytest.raises(ValueError, match="the table: `user` must hold one value in each row, found lists"):
        read_events(table)
