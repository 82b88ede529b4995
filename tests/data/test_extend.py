import collections
import itertools
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hf_seqrec.data.dataset_folder as dataset_folder
import hf_seqrec.data.sequence_files as sequence_files
from hf_seqrec.data import BuildArguments, InteractionsArguments, build_dataset, extend_dataset, load_sequences

LOG = "user,item,ts\nbo,10,7\nal,9,3\nal,10,1\nbo,9,7\ncy,2,5\nal,9,4\n"


@pytest.fixture
def folder(write_log, tmp_path):
    write_log("items.csv", "item,title\n9,Nine\n10,Ten\n2,Two\n")
    log, items = write_log("old.csv", LOG), str(tmp_path / "items.csv")
    return build_dataset(log, tmp_path / "data", InteractionsArguments(items=items), BuildArguments(num_shards=2))


def histories(folder):
    sequences = load_sequences(folder, timestamps=True)
    decoded = sequences.catalog.decode(sequences.item_rows)
    bounds = zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    parts = [
        list(zip(decoded[start:stop], sequences.timestamps[start:stop].tolist(), strict=True))
        for start, stop in bounds
    ]
    return dict(zip(sequences.user_ids.to_pylist(), parts, strict=True))


def test_by_hand(folder, write_log, tmp_path):
    new = write_log(
        "new.csv",
        # Events between and before the old ones, of a new user, with new items (11 twice); one is there already.
        "user,item,ts\nal,11,2\ndi,9,1\nbo,11,6\nal,9,3\nal,2,4\ndi,12,0\n",
    )
    items = write_log("more.csv", "item,title,year\n11,Eleven,1999\n")
    before = load_sequences(folder).catalog.item_ids.to_pylist()
    arguments = InteractionsArguments(items=str(items))
    assert extend_dataset(folder, new, arguments) == folder
    catalog = load_sequences(folder).catalog
    assert before == ["9", "10", "2"]
    assert catalog.table.to_pydict() == {
        "row": [1, 2, 3, 4, 5],
        "item_id": ["9", "10", "2", "11", "12"],
        "count": [4, 2, 2, 2, 1],
        "title": ["Nine", "Ten", "Two", "Eleven", None],
    }
    assert histories(folder) == {
        "bo": [("11", 6), ("10", 7), ("9", 7)],
        "al": [("10", 1), ("11", 2), ("9", 3), ("9", 4), ("2", 4)],
        "cy": [("2", 5)],
        "di": [("12", 0), ("9", 1)],
    }
    statistics = load_sequences(folder).statistics
    assert (statistics["n_users"], statistics["n_items"], statistics["n_interactions"]) == (4, 5, 11)
    assert [step["name"] for step in statistics["steps"]] == [
        "the log",
        "added new.csv (1 events were there already)",
    ]
    assert "| added new.csv (1 events were there already) | 4 | 5 | 11 |" in (folder / "README.md").read_text()
    # Old files keep their names, and nothing else is left.
    assert sorted(path.name for path in (folder / "sequences").iterdir()) == [
        f"part-0000{number}.parquet" for number in range(3)
    ]
    assert not list(tmp_path.glob(".data*"))


def test_the_same_log_again_adds_nothing(folder, write_log):
    before = histories(folder)
    with pytest.raises(ValueError, match="nothing new: 6 of its events are there already, 0"):
        extend_dataset(folder, write_log("again.csv", LOG))
    assert histories(folder) == before


def test_rare_new_items(folder, write_log):
    new = write_log("new.csv", "user,item,ts\nal,11,9\nal,12,9\nbo,12,9\nbo,9,9\n")
    extend_dataset(folder, new, InteractionsArguments(min_item_events=2))
    assert load_sequences(folder).catalog.item_ids.to_pylist() == ["9", "10", "2", "12"]
    assert histories(folder)["bo"] == [("10", 7), ("9", 7), ("12", 9), ("9", 9)]
    with pytest.raises(ValueError, match="nothing new: 0 of its events are there already, 1 are of new users or items"):
        extend_dataset(
            folder, write_log("new.csv", "user,item,ts\nal,99,9\n"), InteractionsArguments(min_item_events=2)
        )


def test_somewhere_else(folder, write_log, tmp_path):
    before = histories(folder)
    new = write_log("new.csv", "user,item,ts\nal,9,9000000000000\nal,10,8999999999999\n")
    other = extend_dataset(folder, new, output=tmp_path / "other")
    assert histories(folder) == before
    # Milliseconds became seconds, in the order of milliseconds.
    assert histories(other)["al"][-2:] == [("10", 8999999999), ("9", 9000000000)]


def test_a_failure_leaves_the_folder_as_it_was(folder, write_log, monkeypatch):
    before = histories(folder)
    with pytest.raises(ValueError, match="line 3"):
        extend_dataset(folder, write_log("bad.csv", "user,item,ts\na,b,1\na,b,x\n"))

    def fail(*arguments):
        raise RuntimeError("the lights went out")

    monkeypatch.setattr(dataset_folder, "render_card", fail)
    with pytest.raises(RuntimeError, match="lights"):
        extend_dataset(folder, write_log("new.csv", "user,item,ts\nal,9,9\n"))
    assert histories(folder) == before
    assert [path.name for path in folder.parent.glob(".data*")] == []


@pytest.mark.parametrize("option", [{"repeats": "first"}, {"last_n": 5}, {"max_users": 2}])
def test_filters_over_all_events(folder, write_log, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` must be left out"):
        extend_dataset(folder, write_log("new.csv", LOG), InteractionsArguments(**option))


def test_no_dataset(tmp_path, write_log):
    with pytest.raises(FileNotFoundError, match="must be a dataset folder to add to"):
        extend_dataset(tmp_path / "none", write_log("new.csv", LOG))


users, items, times = st.sampled_from("abcdefgh"), st.sampled_from("uvwxyz"), st.integers(0, 5)
logs = st.lists(st.tuples(users, items, times), min_size=1, max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(logs, logs)
def test_extending_equals_building(tmp_path_factory, monkeypatch, old, new):
    monkeypatch.setattr(sequence_files, "_EVENTS_PER_ROW_GROUP", 5)
    # A picture takes longer than all the rest.
    monkeypatch.setattr(dataset_folder, "draw_statistics", lambda *arguments: False)
    folder = tmp_path_factory.mktemp("extend")
    for name, events in (("old", old), ("new", new)):
        lines = [json.dumps({"user": user, "item": item, "ts": time}) for user, item, time in events]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    data = build_dataset(folder / "old.jsonl", folder / "data")
    rows = load_sequences(data).catalog.item_ids.to_pylist()
    added = [event for event in new if event not in old]
    if not added:
        with pytest.raises(ValueError, match="nothing new"):
            extend_dataset(data, folder / "new.jsonl")
        return
    extend_dataset(data, folder / "new.jsonl")
    expected = collections.defaultdict(list)
    for user, item, time in [*sorted(old, key=lambda event: event[2]), *sorted(added, key=lambda event: event[2])]:
        expected[user].append((item, time))
    found = histories(data)
    assert found == {user: sorted(events, key=lambda event: event[1]) for user, events in expected.items()}
    # Users in the order in which the logs first name them, items at the rows they had.
    assert list(found) == list(dict.fromkeys(user for user, _, _ in [*old, *new] if user in expected))
    catalog = load_sequences(data).catalog
    assert catalog.item_ids.to_pylist()[: len(rows)] == rows
    counted = collections.Counter(item for item, _ in itertools.chain(*found.values()))
    assert dict(zip(catalog.item_ids.to_pylist(), catalog.counts.tolist(), strict=True)) == counted


def test_the_k_core_of_the_folder_holds_for_new_users_and_items(write_log, tmp_path):
    old = write_log("old.csv", "user,item,ts\n" + "".join(f"{user},{item},1\n" for user in "ab" for item in "xy"))
    folder = build_dataset(old, tmp_path / "data", InteractionsArguments(min_user_events=2, min_item_events=2))
    # New item z has two events, but d, who has one of them and only that, goes; so z goes, and c keeps x and y alone.
    events = [("c", "x"), ("c", "y"), ("c", "z"), ("d", "z"), ("a", "x"), ("e", "x")]
    new = write_log("new.csv", "user,item,ts\n" + "".join(f"{user},{item},2\n" for user, item in events))
    extend_dataset(folder, new)
    assert histories(folder) == {
        "a": [("x", 1), ("y", 1), ("x", 2)],
        "b": [("x", 1), ("y", 1)],
        "c": [("x", 2), ("y", 2)],
    }
    # What is given wins.
    extend_dataset(
        folder, write_log("next.csv", "user,item,ts\n" + "f,w,3\n" * 3), InteractionsArguments(min_user_events=3)
    )
    assert histories(folder)["f"] == [("w", 3)] * 3


def test_conditions_of_the_folder_hold(write_log, tmp_path, caplog):
    header = "who,user,item,ts,is_click\n"
    old = write_log("old.csv", header + "a,n,x,1,1\na,n,y,1,0\na,n,z,2,1\n")
    arguments = InteractionsArguments(user_column="who", where=["is_click=1"], repeats="first")
    folder = build_dataset(old, tmp_path / "data", arguments)
    extend_dataset(folder, write_log("new.csv", header + "a,n,x,5,1\na,n,y,6,0\n"))
    assert histories(folder) == {"a": [("x", 1), ("z", 2), ("x", 5)]}


def test_a_table(folder):
    extend_dataset(folder, pa.table({"user": ["al"], "item": [2.0], "ts": [9.0]}))
    assert histories(folder)["al"][-1] == ("2", 9)
