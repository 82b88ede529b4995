from dataclasses import replace

import numpy as np
import pytest

from hf_seqrec.baselines.popularity import popularity_baseline, popularity_ranks
from hf_seqrec.data.global_time_split import global_time_split

DAY = 86_400
NEW_YEAR = 1_041_379_200  # 2003-01-01 UTC


@pytest.fixture
def make_timed(make_sequences):
    """Sequences from one dict per user, day -> item; days are counted from 2003-01-01."""

    def make(*histories, unit=DAY, first=NEW_YEAR):
        sequences = make_sequences(*[list(history.values()) for history in histories])
        times = np.concatenate([np.array(list(history), dtype=np.int64) * unit + first for history in histories])
        return replace(sequences, timestamps=times)

    return make


def histories(view):
    return {int(user): view.history(index).tolist() for index, user in enumerate(view.users)}


def targets(view):
    return dict(zip(view.users.tolist(), view.targets.tolist(), strict=True))


@pytest.fixture
def log(make_timed):
    return make_timed(
        {0: 1, 1: 2, 2: 3, 10: 1, 11: 2, 20: 3, 21: 1},  # in all periods
        {0: 2, 10: 1},  # one event to train on; validation only
        {1: 3, 2: 1, 20: 2},  # nothing in the validation period
        {1: 1, 2: 2, 10: 4, 20: 1},  # item 4 is cold in validation, and then part of the history
        {1: 1, 9: 3, 20: 5, 21: 1},  # item 5 is cold in test: the event after it does not take its place
        {10: 1, 20: 2},  # a cold user
    )


def test_by_hand(log):
    splits = global_time_split(log, "2003-01-11", "2003-01-21")
    assert histories(splits.train) == {0: [1, 2, 3], 2: [3, 1], 3: [1, 2], 4: [1, 3]}
    assert splits.train.targets is None
    assert histories(splits.validation) == {0: [1, 2, 3], 1: [2]}
    assert targets(splits.validation) == {0: 1, 1: 1}
    assert histories(splits.test) == {0: [1, 2, 3, 1, 2], 2: [3, 1], 3: [1, 2, 4]}
    assert targets(splits.test) == {0: 3, 2: 2, 3: 1}
    assert splits.counts == {
        "users trained on": 4,
        "users evaluated in validation": 2,
        "users evaluated": 3,
        "users with fewer than 2 training events": 1,
        "cold users (no training event), not evaluated": 1,
        "cold items (no training event)": 2,
        "users not evaluated in validation, their target is cold": 1,
        "users not evaluated, their target is cold": 1,
    }
    assert "before 2003-01-11 00:00:00 UTC" in splits.protocol
    kept = global_time_split(log, "2003-01-11", "2003-01-21", keep_cold_targets=True)
    assert targets(kept.validation) == {0: 1, 1: 1, 3: 4}
    assert targets(kept.test) == {0: 3, 2: 2, 3: 1, 4: 5}


def test_nothing_leaks(make_timed):
    rng = np.random.default_rng(0)
    users = []
    for _ in range(300):
        days = np.unique(rng.integers(0, 1000, rng.integers(1, 30)))
        users.append(dict(zip(days.tolist(), rng.integers(1, 60, len(days)).tolist(), strict=True)))
    log = make_timed(*users)
    splits = global_time_split(log)
    cuts = splits.validation_from, splits.test_from
    # Shares of the events, up to those of the same day.
    assert [(log.timestamps < cut).mean() for cut in cuts] == pytest.approx([0.8, 0.9], abs=0.005)
    assert log.timestamps[splits.train.stops - 1].max() < cuts[0]
    for view, begin, end in ((splits.validation, cuts[0], cuts[1]), (splits.test, cuts[1], np.inf)):
        times = log.timestamps[view.stops]
        assert begin <= times.min() <= times.max() < end
        # The first event of the period, with all that was before it.
        assert log.timestamps[view.stops - 1].max() < begin
        np.testing.assert_array_equal(view.starts, log.offsets[view.users])
        assert set(view.targets) <= set(log.item_rows[log.timestamps < cuts[0]])


@pytest.mark.parametrize(
    ("validation_from", "test_from"),
    [
        ("2003-01-11T01:00:00+01:00", "2003-01-21T00:00:00Z"),
        (NEW_YEAR + 10 * DAY, str(NEW_YEAR + 20 * DAY)),
        # Of 22 events 10 are before day 10 and 15 before day 20: those at places 11 and 16 are the first after a cut.
        ("0.5", 0.75),
    ],
)
def test_a_moment_in_other_words(log, validation_from, test_from):
    splits = global_time_split(log, validation_from, test_from)
    assert (splits.validation_from, splits.test_from) == (NEW_YEAR + 10 * DAY, NEW_YEAR + 20 * DAY)


def test_popularity_knows_training_only(log):
    splits = global_time_split(log, "2003-01-11", "2003-01-21")
    # The one event of user 1, who is not trained on, does not count.
    assert splits.train.item_counts().tolist() == [0, 4, 2, 3, 0, 0]
    ranks, with_seen = popularity_ranks(splits.train, splits.test)
    assert with_seen.tolist() == [1, 2, 0]
    # User 2 has had 3 and 1, so 2 is the most popular that is left.
    assert ranks.tolist() == [0, 0, 0]
    assert popularity_baseline(splits.train, splits.test)["hr@1_with_seen"] == pytest.approx(1 / 3)


def test_positions_instead_of_times(make_timed, caplog):
    log = make_timed(*[dict(enumerate([1, 2, 3, 1, 2, 3, 1, 2, 3, 1]))] * 5, unit=1, first=0)
    with pytest.raises(ValueError, match=r"must not be a date \(2003-01-11\): .* go from 0 to 9 and are no Unix"):
        global_time_split(log, "2003-01-11", "2003-01-21")
    splits = global_time_split(log)
    assert (splits.validation_from, splits.test_from) == (8, 9)
    assert "before timestamp 8" in splits.protocol
    assert "are no Unix seconds" in caplog.text
    caplog.clear()
    assert global_time_split(log, 8, 9).validation_from == 8
    assert not caplog.text


def test_milliseconds(make_timed):
    log = make_timed({0: 1, 1: 2, 2: 1}, unit=1000 * DAY, first=1000 * NEW_YEAR)
    with pytest.raises(ValueError, match="no Unix seconds"):
        global_time_split(log, "2003-01-02")


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (("2002-01-01", "2003-01-21"), "`validation_from` must be after the first event .* Nothing would be before"),
        (("2003-01-11", "2004-01-21"), "`test_from` must be .* not after the last one.* Nothing would be after"),
        (("2003-01-21", "2003-01-11"), "`validation_from` must be before `test_from`"),
        (("2003-01-21", "2003-01-21"), "`validation_from` must be before `test_from`"),
        (("0.9", "0.8"), "`validation_from` must be before `test_from`"),
        (("yesterday", "0.8"), "`validation_from` must be a date such as 2003-01-31.* got 'yesterday'"),
        (("0.8", "1.5"), "`test_from` must be a date, a whole timestamp or a share .* got '1.5'"),
        (("0.8", "0.0"), "`test_from` must be a date"),
        (("0.8", "nan"), "`test_from` must be a date"),
        # Only user 0 has two events on days 0 and 1, and needs day 2 for a second item.
        (("2003-01-02", "2003-01-21"), "leave a user with 2 events to train on"),
        (("2003-01-11", "2003-01-22"), r"leave a user to evaluate in the test period.* \(0 of them"),
    ],
)
def test_cuts_that_cannot_be(log, cuts, message):
    if cuts[1] == "2003-01-22":
        # Day 21 is left to user 5 alone, who is new.
        log = replace(
            log, timestamps=np.where(log.timestamps == NEW_YEAR + 21 * DAY, NEW_YEAR + 20 * DAY, log.timestamps)
        )
        log.timestamps[-1] = NEW_YEAR + 21 * DAY
    with pytest.raises(ValueError, match=message):
        global_time_split(log, *cuts)


def test_timestamps_that_are_missing_or_out_of_order(make_timed, make_sequences):
    with pytest.raises(ValueError, match=r"load_sequences\(folder, timestamps=True\)"):
        global_time_split(make_sequences([1, 2, 3]))
    # The second user begins before the first one ends, which is no fault.
    log = make_timed({0: 1, 5: 2, 9: 1}, {1: 1, 3: 2, 2: 1})
    with pytest.raises(ValueError, match=r"1 are not, the first of user 'user 1'"):
        global_time_split(log)
