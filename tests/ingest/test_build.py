import collections
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.build import build_dataset
from hf_seqrec.ingest.read_log import InteractionsArguments

LOG = """user_id:token\titem_id:token\ttimestamp:float
bo\t10\t7
al\t9\t3.0
al\t10\t1
bo\t9\t7
cy\t2\t5
al\t9\t3
"""


@pytest.fixture
def log(write_log):
    return write_log("shop.inter", LOG)


def test_a_small_log_by_hand(log, tmp_path, write_log):
    write_log("shop.item", 'item_id:token\tname:token_seq\n9\tNine "9"\n11\tEleven\n10\tTen\n')
    folder = build_dataset(log, tmp_path / "out" / "shop")
    sequences = load_sequences(folder, timestamps=True)
    # 9 three times, 10 twice, 2 once.
    assert sequences.catalog.table.drop_columns("row").to_pydict() == {
        "item_id": ["9", "10", "2"],
        "count": [3, 2, 1],
        "title": ['Nine "9"', "Ten", None],
    }
    # Users as the log first names them; events by time, those of the same time as in the log.
    assert sequences.user_ids.to_pylist() == ["bo", "al", "cy"]
    histories = [sequences.catalog.decode(sequences.history(user)) for user in range(3)]
    assert histories == [["10", "9"], ["10", "9", "9"], ["2"]]
    assert sequences.timestamps.tolist() == [7, 7, 1, 3, 3, 5]
    statistics = sequences.statistics
    assert statistics["n_users_not_evaluated"] == 2
    assert (statistics["n_users"], statistics["n_items"], statistics["n_interactions"]) == (3, 3, 6)
    assert statistics["history_length"] == {"min": 1, "median": 2.0, "mean": 2.0, "max": 3}
    assert statistics["n_items_without_title"] == 1
    assert statistics["steps"] == [{"name": "the log", "n_users": 3, "n_items": 3, "n_interactions": 6}]
    assert leave_one_out(sequences).n_not_evaluated == 2
    # Nothing else was left beside it, nor a path of this machine in it.
    assert [path.name for path in folder.parent.iterdir()] == ["shop"]
    card = (folder / "README.md").read_text()
    assert "users with fewer than three events | 2 (kept for training, not evaluated)" in card
    assert str(tmp_path) not in card + json.dumps(statistics)


def test_equal_counts_go_by_raw_id(write_log, tmp_path):
    log = write_log("log.csv", "user,item,ts\n" + "".join(f"u,{item},0\n" for item in ["b", "é", "10", "9", "a", "B"]))
    catalog = load_sequences(build_dataset(log, tmp_path / "out")).catalog
    assert catalog.item_ids.to_pylist() == ["10", "9", "B", "a", "b", "é"]


def test_filters(log, tmp_path):
    # Without repeats al has 10 9, bo 10 9, cy 2; cy and 2 fall.
    arguments = InteractionsArguments(repeats="first", min_user_events=2, min_item_events=2)
    sequences = load_sequences(build_dataset(log, tmp_path / "out", arguments))
    assert str(sequences) == "2 users / 2 items / 4 interactions"
    assert sequences.statistics["source"]["repeats"] == "first"
    assert [(step["name"], step["n_interactions"]) for step in sequences.statistics["steps"]] == [
        ("the log", 6),
        ("repeats=first", 5),
        ("min_user_events=2, min_item_events=2", 4),
    ]


def test_load_dataset_opens_it_offline(log, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = str(build_dataset(log, tmp_path / "out"))
    cache = str(tmp_path / "cache")
    sequences = datasets.load_dataset(folder, cache_dir=cache)["train"]
    assert sequences[1] == {"user_id": "al", "item_ids": [2, 1, 1], "timestamps": [1, 3, 3]}
    assert sequences.features["item_ids"] == datasets.List(datasets.Value("int32"))
    catalog = datasets.load_dataset(folder, "catalog", split="train", cache_dir=cache)
    assert catalog[0] == {"row": 1, "item_id": "9", "count": 3}
    streamed = datasets.load_dataset(folder, split="train", streaming=True)
    assert [row["user_id"] for row in streamed] == ["bo", "al", "cy"]


def test_a_failed_build_leaves_nothing_and_the_earlier_dataset(log, write_log, tmp_path):
    out = build_dataset(log, tmp_path / "data" / "out")
    bad = write_log("bad.csv", "user,item,ts\na,b,x\n")
    for output in (out, tmp_path / "data" / "new"):
        with pytest.raises(ValueError, match="line 2"):
            build_dataset(bad, output)
    with pytest.raises(ValueError, match="no interactions are left"):
        build_dataset(log, out, InteractionsArguments(min_user_events=100))
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert load_sequences(out).n_interactions == 6


def test_a_title_column_without_items(log, tmp_path):
    with pytest.raises(ValueError, match="`title_column` must come with `items`"):
        build_dataset(log, tmp_path / "out", InteractionsArguments(title_column="name"))


identifier = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=3)
events = st.lists(st.tuples(identifier, identifier, st.integers(0, 3)), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(events, st.integers(1, 3), st.integers(1, 3))
def test_every_remaining_event_once_and_in_order(tmp_path, write_log, log_events, min_user, min_item):
    lines = [json.dumps({"user": user, "item": item, "ts": time}) for user, item, time in log_events]
    log = write_log("log.jsonl", "\n".join(lines))
    expected = list(log_events)
    while True:
        users = collections.Counter(user for user, _, _ in expected)
        items = collections.Counter(item for _, item, _ in expected)
        kept = [event for event in expected if users[event[0]] >= min_user and items[event[1]] >= min_item]
        if kept == expected:
            break
        expected = kept
    arguments = InteractionsArguments(min_user_events=min_user, min_item_events=min_item)
    if not expected:
        with pytest.raises(ValueError, match="no interactions are left"):
            build_dataset(log, tmp_path / "out", arguments)
        return
    sequences = load_sequences(build_dataset(log, tmp_path / "out", arguments), timestamps=True)
    histories = collections.defaultdict(list)
    for user, item, time in expected:
        histories[user].append((time, item))
    assert sequences.user_ids.to_pylist() == list(histories)
    decoded = sequences.catalog.decode(sequences.item_rows)
    assert list(zip(sequences.timestamps.tolist(), decoded, strict=True)) == [
        event for history in histories.values() for event in sorted(history, key=lambda event: event[0])
    ]
    assert sequences.catalog.counts.tolist() == sorted(items.values(), reverse=True)


def test_tables_in_memory(tmp_path):
    pandas = pytest.importorskip("pandas")
    columns = {"user_id": ["u", "u", "v"], "item_id": [10.0, 7.0, None], "timestamp": [2, 1, 3]}
    items = pa.table({"item_id": [10, 7], "title": ["Ten", "Seven"]})
    arguments = InteractionsArguments(on_bad_rows="skip")
    frame = pandas.DataFrame(columns)
    frame["timestamp"] = pandas.to_datetime(frame["timestamp"], unit="s", utc=True).astype("datetime64[ns, UTC]")
    indexed = frame.set_index("user_id").astype({"item_id": "category"})
    reader = pa.RecordBatchReader.from_batches(pa.table(columns).schema, pa.table(columns).to_batches())
    for number, log in enumerate((pa.table(columns), frame, indexed, reader)):
        folder = build_dataset(log, tmp_path / f"out{number}", arguments, items=items)
        sequences = load_sequences(folder, timestamps=True)
        assert sequences.catalog.describe(sequences.history("u")) == ["Seven", "Ten"]
        assert sequences.timestamps.tolist() == [1, 2]
        assert "built from a table by hf_seqrec" in (folder / "README.md").read_text()


def test_tables_that_cannot_be(tmp_path):
    class Lazy:
        def collect(self): ...

    with pytest.raises(TypeError, match=r"got Lazy\. Call its `collect\(\)` first"):
        build_dataset(Lazy(), tmp_path / "out")
    pandas = pytest.importorskip("pandas")
    mixed = pandas.DataFrame({"user": ["u", "v"], "item": pandas.Series([1, "a"], dtype=object), "ts": [1, 2]})
    with pytest.raises(ValueError, match=r"`raw` must be a table whose columns .*; `item` does not"):
        build_dataset(mixed, tmp_path / "out")
    with pytest.raises(ValueError, match="a table has columns and no interactions"):
        build_dataset(pa.table({"user": [], "item": [], "ts": []}), tmp_path / "out")
    with pytest.raises(ValueError, match="the table, row 2: `ts` must be a time"):
        build_dataset(pa.table({"user": ["u", "v"], "item": ["a", "b"], "ts": ["1", "x"]}), tmp_path / "out")
