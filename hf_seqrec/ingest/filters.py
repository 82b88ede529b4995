"""
What to keep of a log: repeats, users, items, the most recent events, the k-core.

Ibis expressions over events as `encoding` numbers them: `user`, `item`, `time`, `file_order`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .read_log import InteractionsArguments

if TYPE_CHECKING:
    import ibis


def apply_filters(
    engine: Any, events: "ibis.Table", arguments: InteractionsArguments
) -> "Iterator[tuple[str, ibis.Table]]":
    """
    Apply the filters that are asked for, one after the other, and yield what each is called and what it leaves.

    A table that was yielded is gone when the next one is asked for. The k-core comes last, so that it holds for what
    remains.

    Raises:
        ValueError: if nothing remains.
    """
    first, popular, last = (arguments.max_users or 0, arguments.max_items or 0, arguments.last_n or 0)
    steps = [
        (f"repeats={arguments.repeats}", arguments.repeats != "keep", lambda t: drop_repeats(t, arguments.repeats)),
        (f"max_users={arguments.max_users}", arguments.max_users, lambda t: first_users(t, first)),
        (
            f"max_items={arguments.max_items}",
            arguments.max_items,
            lambda t: popular_items(t, popular),
        ),
        (f"last_n={arguments.last_n}", arguments.last_n, lambda t: most_recent(t, last)),
    ]
    for name, is_asked_for, keep in steps:
        if is_asked_for:
            previous, events = events, engine.materialize("kept", keep(events))
            engine.drop(previous)
            yield name, events
    least = arguments.min_user_events, arguments.min_item_events
    if least != (1, 1):
        events = k_core(engine, events, *least)
        yield f"min_user_events={least[0]}, min_item_events={least[1]}", events


def drop_repeats(events: "ibis.Table", repeats: str) -> "ibis.Table":
    """Keep all events of a user with the same item, the first, the last, or the first of each consecutive run."""
    import ibis

    if repeats == "keep":
        return events
    time = [events.time, events.file_order]
    if repeats == "consecutive":
        previous = events.item.lag().over(group_by="user", order_by=time)
        kept = events.mutate(previous=previous).filter(lambda t: t.previous.isnull() | (t.previous != t.item))
        return kept.drop("previous")
    order = time if repeats == "first" else [key.desc() for key in time]
    nth = ibis.row_number().over(group_by=["user", "item"], order_by=order)
    return events.mutate(nth=nth).filter(lambda t: t.nth == 0).drop("nth")


def first_users(events: "ibis.Table", max_users: int) -> "ibis.Table":
    """Keep the users whom the log names first, which is how they are numbered."""
    return events.filter(events.user < max_users)


def popular_items(events: "ibis.Table", max_items: int) -> "ibis.Table":
    """Keep the items with most events, of equal ones those with lower numbers."""
    import ibis

    counts = events.group_by("item").agg(n=events.count())
    return events.semi_join(counts.order_by(ibis.desc("n"), "item").limit(max_items), "item")


def most_recent(events: "ibis.Table", last_n: int) -> "ibis.Table":
    """Keep each user's most recent events."""
    import ibis

    newest_first = ibis.row_number().over(group_by="user", order_by=[events.time.desc(), events.file_order.desc()])
    return events.mutate(nth=newest_first).filter(lambda t: t.nth < last_n).drop("nth")


def k_core(engine: Any, events: "ibis.Table", min_user_events: int, min_item_events: int) -> "ibis.Table":
    """
    Drop users and items with too few events until every one that remains has enough. `events` is gone afterwards.

    Raises:
        ValueError: if nothing remains.
    """
    n_events = events.count().to_pyarrow().as_py()
    while min_user_events > 1 or min_item_events > 1:
        kept = events
        for key, least in (("user", min_user_events), ("item", min_item_events)):
            if least > 1:
                enough = kept.group_by(key).agg(n=kept.count()).filter(lambda t, least=least: t.n >= least)
                kept = kept.semi_join(enough, key)
        previous, events = events, engine.materialize("core", kept)
        engine.drop(previous)
        n_before, n_events = n_events, events.count().to_pyarrow().as_py()
        if n_events == n_before:
            break
    if not n_events:
        raise ValueError(
            f"no interactions are left: no users with `min_user_events`={min_user_events} and items with "
            f"`min_item_events`={min_item_events} events remain. Lower them."
        )
    return events
