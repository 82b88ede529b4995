"""Live sessions: event by event against the whole history at once; room, files, and what does not fit."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec import Catalog
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.inference.session_file import _checksum
from hf_seqrec.inference.sessions import SessionStore

N_ITEMS = 30
# Of the models with positions; the histories below are longer.
WINDOW = 7
STATEFUL = [name for name in hf_seqrec.MODEL_TYPES if hf_seqrec.config_class(name)().stateless_because is None]
FIXED_SIZE = ["gru4rec", "mamba4rec", "mambarec", "mlsa4rec"]


def recommender_of(model_type, seed=0, n_items=N_ITEMS, **fields):
    set_seed(seed)
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(n_items)
    config = AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=16, **fields)
    if config.max_position_embeddings is not None:
        config.max_position_embeddings = WINDOW
    catalog = Catalog.from_items([f"i{row}" for row in range(1, n_items + 1)], count=range(n_items, 0, -1))
    return Recommender(AutoModel.from_config(config), catalog)


@pytest.fixture(scope="module", params=STATEFUL)
def recommender(request):
    return recommender_of(request.param)


@pytest.fixture(scope="module")
def gru():
    return recommender_of("gru4rec")


@pytest.fixture
def store(gru):
    return SessionStore(gru.model, gru.catalog)


@pytest.fixture
def messages(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("hf_seqrec.inference.recommendation.logger.warning", said.append)
    return said


def histories(n_users=4, longest=12, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"user-{user}": [f"i{row}" for row in rng.integers(1, N_ITEMS + 1, rng.integers(1, longest + 1))]
        for user in range(n_users)
    }


def assert_same(found, expected):
    """Compare recommendations: the same scores, whatever the order of near-ties."""
    found, expected = ({best.item_id: best.score for best in part} for part in (found, expected))
    assert found.keys() == expected.keys()
    for item_id, score in expected.items():
        assert abs(found[item_id] - score) < 1e-4


def add_all(store, of_users):
    pairs = [(user, item) for user, history in of_users.items() for item in history]
    store.add_many([user for user, _ in pairs], [item for _, item in pairs])


class TestAgainstTheWholeHistory:
    def test_event_by_event(self, recommender):
        history = histories(1, longest=20, seed=4)["user-0"]
        assert len(history) > WINDOW + 2
        session = SessionStore(recommender.model, recommender.catalog).session("ann")
        for n_events, item in enumerate(history, start=1):
            assert session.add(item)
            assert_same(session.recommend(N_ITEMS), recommender.recommend(history[:n_events], N_ITEMS))
        assert len(session) == len(history)

    def test_many_users_in_turns(self, recommender):
        """Histories of different lengths go on at different times, some beyond the window, in one store."""
        store, of_users = SessionStore(recommender.model, recommender.catalog), histories(6)
        first = {user: history[: len(history) // 2] for user, history in of_users.items()}
        add_all(store, first)
        add_all(store, {user: history[len(first[user]) :] for user, history in of_users.items()})
        answers = store.recommend_many(list(of_users), N_ITEMS, exclude_seen=False)
        expected = recommender.recommend_many(list(of_users.values()), N_ITEMS, exclude_seen=False)
        for answer, whole in zip(answers, expected, strict=True):
            assert_same(answer.recommendations, whole.recommendations)

    def test_long_histories_are_encoded_in_parts(self, recommender, monkeypatch):
        of_users = histories(3, longest=40, seed=1)
        monkeypatch.setattr("hf_seqrec.inference.sessions._POSITIONS_AT_ONCE", 8)
        store = SessionStore(recommender.model, recommender.catalog)
        add_all(store, of_users)
        for user, history in of_users.items():
            assert_same(store.recommend_many([user], 5)[0].recommendations, recommender.recommend(history, 5))

    def test_scores_in_parts(self, gru, store, monkeypatch):
        of_users = histories()
        add_all(store, of_users)
        expected = store.recommend_many(list(of_users))
        monkeypatch.setattr("hf_seqrec.inference.sessions._SCORES_AT_ONCE", N_ITEMS)
        for answer, whole in zip(store.recommend_many(list(of_users)), expected, strict=True):
            assert_same(answer.recommendations, whole.recommendations)


@pytest.mark.parametrize("model_type", FIXED_SIZE)
def test_the_state_does_not_grow(model_type):
    recommender = recommender_of(model_type)
    store = SessionStore(recommender.model, recommender.catalog)
    session, before = store.session("ann"), store.bytes_per_user
    session.extend(["i3", "i5"] * 100)
    assert store.bytes_per_user == before
    # What is allocated is what is said, for each of the slots.
    held = sum(part.nbytes for part in store._states.values()) + store._queries.nbytes
    held += sum(values.nbytes for values in store._users.by_name.values())
    assert held == before * store._capacity


def test_bytes_of_a_gru_by_hand(gru, store):
    # 128 channels and 16 that predict in float32, two counts of 8 bytes, 31 bits.
    assert gru.model.config.gru_hidden_size == 128
    assert store.bytes_per_user == 4 * (128 + 16) + 16 + 4
    assert SessionStore(gru.model, gru.catalog, seen_limit=5).bytes_per_user == 4 * (128 + 16) + 16 + 4 * 5


class TestSession:
    def test_is_the_recommenders(self):
        recommender = recommender_of("gru4rec")
        recommender.session("ann").add("i3")
        assert len(recommender.session("ann")) == 1
        assert "ann" in recommender.sessions

    def test_before_the_first_item(self, store, messages):
        session = store.session("ann")
        assert [best.item_id for best in session.recommend(2)] == ["i1", "i2"]
        assert messages == ["Recommending the most popular items: the history is empty."]
        assert len(session) == 0

    def test_unknown_items_are_counted_and_left_out(self, store, messages):
        session = store.session("ann")
        assert not session.add("x")
        assert len(store) == 0
        assert session.extend(["i3", "y", "z"]) == 2
        assert len(session) == 1
        assert messages == [
            "1 of 1 items are not in this model's catalog and were left out.",
            "2 of 3 items are not in this model's catalog and were left out.",
        ]

    def test_seen_items(self, store):
        session = store.session("ann")
        session.extend([f"i{row}" for row in range(1, N_ITEMS)])
        assert [best.item_id for best in session.recommend()] == [f"i{N_ITEMS}"]
        assert len(session.recommend(N_ITEMS, exclude_seen=False)) == N_ITEMS

    def test_only_the_last_seen_items(self, gru):
        session = SessionStore(gru.model, gru.catalog, seen_limit=2).session("ann")
        session.extend(["i1", "i2", "i3"])
        session.add("i4")
        left = {best.item_id for best in session.recommend(N_ITEMS)}
        assert left == {f"i{row}" for row in range(1, N_ITEMS + 1)} - {"i3", "i4"}
        everything = SessionStore(gru.model, gru.catalog, seen_limit=0).session("ann")
        everything.add("i1")
        assert len(everything.recommend(N_ITEMS)) == N_ITEMS

    def test_end(self, store):
        session = store.session("ann")
        session.add("i3")
        session.end()
        assert "ann" not in store
        session.add("i4")
        assert len(session) == 1
        assert not store.remove("bob")

    def test_impossible_top_k(self, store):
        with pytest.raises(ValueError, match=r"`top_k` must be between 1 and"):
            store.session("ann").recommend(0)


class TestRoom:
    def test_the_least_recently_used_is_evicted(self, gru):
        store = SessionStore(gru.model, gru.catalog, max_users=2)
        ann, bob = store.session("ann"), store.session("bob")
        ann.add("i1")
        bob.add("i2")
        ann.recommend()
        store.session("cid").add("i3")
        assert ("ann" in store, "bob" in store, "cid" in store) == (True, False, True)
        assert (len(store), store.evictions) == (2, 1)
        for use in (bob.recommend, lambda: bob.add("i4"), lambda: len(bob)):
            with pytest.raises(LookupError, match=r"session of user 'bob' is no longer there.*max_users=2"):
                use()

    def test_nothing_is_left_of_the_user_before(self, gru):
        """A slot changes hands: neither state nor seen items do."""
        store = SessionStore(gru.model, gru.catalog, max_users=1)
        store.session("ann").extend(["i1", "i2"])
        bob = store.session("bob")
        bob.add("i3")
        assert_same(bob.recommend(N_ITEMS), gru.recommend(["i3"], N_ITEMS))

    def test_users_of_one_batch_do_not_evict_each_other(self, gru):
        """Whose event goes on at the same time is used, if not yet in the order of use."""
        store = SessionStore(gru.model, gru.catalog, max_users=2)
        add_all(store, {"ann": ["i1"], "bob": ["i2"]})
        add_all(store, {"ann": ["i3"], "cid": ["i4"]})
        assert ("ann" in store, "bob" in store, "cid" in store) == (True, False, True)
        assert store.events("ann") == 2

    def test_more_at_once_than_there_is_room_for(self, gru):
        store, of_users = SessionStore(gru.model, gru.catalog, max_users=3), histories(8)
        add_all(store, of_users)
        assert len(store) == 3
        for user in of_users:
            if user in store:
                assert_same(store.recommend_many([user])[0].recommendations, gru.recommend(of_users[user]))

    def test_it_grows_as_users_come(self, gru):
        store, of_users = SessionStore(gru.model, gru.catalog), histories(50)
        for user, history in of_users.items():
            store.session(user).extend(history)
        assert len(store) == 50
        for user, history in of_users.items():
            assert_same(store.recommend_many([user])[0].recommendations, gru.recommend(history))

    def test_a_failing_update_changes_nothing(self, gru, store, monkeypatch):
        add_all(store, {"ann": ["i1"]})
        before = store.recommend_many(["ann"])
        monkeypatch.setattr(gru.model, "encode", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            add_all(store, {"ann": ["i2"], "bob": ["i3"]})
        assert (store.events("ann"), "bob" in store) == (1, False)
        assert store.recommend_many(["ann"]) == before


class TestFile:
    @pytest.fixture
    def path(self, store, tmp_path):
        add_all(store, histories())
        store.save(tmp_path / "sessions.safetensors")
        return tmp_path / "sessions.safetensors"

    def test_goes_on_where_it_was(self, recommender, tmp_path):
        of_users, path = histories(), tmp_path / "sessions.safetensors"
        store = SessionStore(recommender.model, recommender.catalog)
        add_all(store, of_users)
        store.remove("user-1")
        store.save(path)
        restored = SessionStore(recommender.model, recommender.catalog)
        restored.session("somebody").add("i1")
        restored.restore(path)
        assert "somebody" not in restored
        for user in set(of_users) - {"user-1"}:
            for item in ("i9", "i8"):
                restored.session(user).add(item)
            assert_same(restored.session(user).recommend(5), recommender.recommend([*of_users[user], "i9", "i8"], 5))
        assert os.listdir(tmp_path) == ["sessions.safetensors"]

    def test_the_most_recently_used_are_kept(self, gru, path):
        store = SessionStore(gru.model, gru.catalog, max_users=3)
        store.restore(path)
        assert (len(store), store.evictions) == (3, 1)
        # The order of use is that of the file.
        store.session("ann").add("i1")
        assert len(set(histories()) & set(store._slots)) == 2

    def test_no_sessions(self, gru, tmp_path):
        SessionStore(gru.model, gru.catalog).save(tmp_path / "none")
        store = SessionStore(gru.model, gru.catalog)
        store.session("ann").add("i1")
        store.restore(tmp_path / "none")
        assert len(store) == 0
        store.session("ann").add("i1")

    def test_a_model_trained_on_is_another(self, store, path):
        other = recommender_of("gru4rec", seed=0)
        with torch.no_grad():
            other.model.out_proj.bias += 1e-3
        with pytest.raises(ValueError, match=r"holds the sessions of other weights .* begin again from the users'"):
            SessionStore(other.model, other.catalog).restore(path)

    def test_another_type_of_model(self, path):
        other = recommender_of("mamba4rec")
        with pytest.raises(ValueError, match=r"another type of model \(gru4rec\) than this one \(mamba4rec\)"):
            SessionStore(other.model, other.catalog).restore(path)

    def test_another_catalog(self, gru, path):
        renamed = Catalog.from_items([f"j{row}" for row in range(1, N_ITEMS + 1)])
        with pytest.raises(ValueError, match=r"holds the sessions of another catalog"):
            SessionStore(gru.model, renamed).restore(path)

    def test_another_seen_limit(self, gru, path):
        with pytest.raises(ValueError, match=r"saved with `seen_limit=null`, but here it is 5"):
            SessionStore(gru.model, gru.catalog, seen_limit=5).restore(path)

    @pytest.mark.parametrize("kept", [0, 5, 200, -1])
    def test_cut_short(self, store, path, kept):
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        before = store.recommend_many(["user-0"])
        with pytest.raises(ValueError, match=r"cannot be read, it is cut short or damaged"):
            store.restore(path)
        assert store.recommend_many(["user-0"]) == before

    def test_altered(self, store, path):
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"was altered after it was saved"):
            store.restore(path)

    def test_altered_with_a_new_checksum(self, store, path):
        """Whoever computes the checksum again still cannot have tensors of other shapes taken in."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        tensors["queries"] = tensors["queries"][:, :3].contiguous()
        del metadata["checksum"]
        metadata["checksum"] = _checksum(tensors, metadata)
        save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=r"has not the tensors that the states of this model are"):
            store.restore(path)

    def test_some_other_safetensors(self, store, tmp_path):
        save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"is no file of sessions of this version"):
            store.restore(tmp_path / "model.safetensors")

    def test_no_file(self, store, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no session file .*nowhere"):
            store.restore(tmp_path / "nowhere")

    def test_a_failing_save_leaves_the_old_file(self, store, path, monkeypatch):
        before = path.read_bytes()

        def fail(tensors, filename, metadata):
            filename.write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr("hf_seqrec.inference.session_file.save_file", fail)
        with pytest.raises(OSError, match="No space left"):
            store.save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]

    def test_says_whose_it_is(self, gru, path):
        gru.model.config._commit_hash = "abc123"
        try:
            SessionStore(gru.model, gru.catalog).save(path)
        finally:
            gru.model.config._commit_hash = None
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["revision"] == "abc123"
            assert json.loads(file.metadata()["seen_limit"]) is None


@pytest.mark.parametrize(
    ("model_type", "fields", "why"),
    [
        ("bert4rec", {}, "BERT4Rec looks both ways"),
        ("sasrec", {"position_order": "last"}, "every new item moves the positions"),
    ],
)
def test_models_without_a_state(model_type, fields, why):
    recommender = recommender_of(model_type, **fields)
    with pytest.raises(ValueError, match=rf"needs a model that carries state, but .*{why}.*`Recommender.recommend`"):
        recommender.session("ann")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"max_users": 0}, "`max_users` must be at least 1"), ({"seen_limit": -1}, "`seen_limit` must be at least 0")],
)
def test_impossible_limits(gru, arguments, message):
    with pytest.raises(ValueError, match=message):
        SessionStore(gru.model, gru.catalog, **arguments)


def test_users_and_items_come_in_pairs(store):
    with pytest.raises(ValueError, match=r"must be pairs, got 1 users and 2 items"):
        store.add_many(["ann"], ["i1", "i2"])
