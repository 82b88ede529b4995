"""From raw ids to small integers, which everything after is done with: 24 bytes an event, whatever the ids."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis


@dataclass(frozen=True)
class EncodedLog:
    """
    A log whose ids are numbers.

    Fields:
        events (`ibis.Table`): `user` (int32), `item` (int32), `time` and `file_order` (int64).
        users (`ibis.Table`): `user` (from 0, in the order in which the log first names them), `user_id` (string) and
            `n` (how many events).
        items (`ibis.Table`): `item` (from 1, most popular first, equal counts by raw id), `item_id` (string) and `n`.
        n_users, n_items, n_interactions: How many there are.
    """

    events: "ibis.Table"
    users: "ibis.Table"
    items: "ibis.Table"
    n_users: int
    n_items: int
    n_interactions: int


def encode(engine: Any, events: "ibis.Table") -> EncodedLog:
    """Number users and items, and give the events by these numbers."""
    import ibis

    first = events.group_by("user_id").agg(first=events.file_order.min(), n=events.count())
    first = first.mutate(user=ibis.row_number().over(order_by="first").cast("int32"), raw_id=first.user_id)
    users = engine.materialize("users", first.select("raw_id", "user", "n"))

    counts = events.group_by("item_id").agg(n=events.count())
    # Code points, whatever the type of the raw ids.
    counts = counts.mutate(raw_id=counts.item_id, text=counts.item_id.cast("string"))
    by_popularity = ibis.row_number().over(order_by=[ibis.desc("n"), ibis.asc("text")])
    ranked = counts.mutate(item=(by_popularity + 1).cast("int32")).select("raw_id", "item", "n")
    items = engine.materialize("items", ranked)

    joined = events.join(users, events.user_id == users.raw_id).drop("raw_id", "n")
    joined = joined.join(items, joined.item_id == items.raw_id)
    encoded = engine.materialize("events", joined.select("user", "item", "time", "file_order"))
    n_users, n_items, n_events = (t.count().to_pyarrow().as_py() for t in (users, items, encoded))
    return EncodedLog(
        encoded,
        users.select("user", "n", user_id=users.raw_id.cast("string")),
        items.select("item", "n", item_id=items.raw_id.cast("string")),
        n_users,
        n_items,
        n_events,
    )
