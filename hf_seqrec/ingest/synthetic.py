"""
The dataset that comes with the package: made-up readers of made-up serials, from a seed.

It has what makes real histories predictable. A reader keeps to a few genres but likes a change, so several serials are
read in turn and some are taken up again after a long while; goes on where they stopped, at their own pace (every
volume or every second); tastes drift from one mixture of genres to another; genres and volumes differ in popularity;
nobody reads a volume twice. So the last volume alone says little: what counts is the place in each serial, the pace
and the mixture.

Because the distribution of the next volume is known, so is the best that any recommender can reach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_seqrec.metrics import ranking_metrics

from ..data.catalog import Catalog
from .dataset_card import About
from .dataset_folder import write_dataset_folder

GENRES = (
    "Mystery", "Comedy", "Fantasy", "Western", "Romance", "Thriller", "Science", "History", "Adventure", "Horror",
    "Travel", "Cooking", "Poetry", "Sport", "Music", "Nature", "Crime", "Satire", "Folklore", "Drama",
)  # fmt: skip
_ONES = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)  # fmt: skip
_TENS = ("", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")

# The generator's constants. A reader picks a genre from the present mixture; the one just read counts less.
_SAME_AGAIN = 0.4
# Within a genre: go on from the last volume read there (the next by their pace, or one or two further), or take a
# popular one.
_GO_ON = 0.9
_STEP_PROBABILITIES = (0.75, 0.17, 0.08)
_PACES, _PACE_PROBABILITIES = (1, 2), (0.6, 0.4)
# Anything popular, whatever the reader's state.
_STRAY = 0.05
_GENRE_SKEW, _VOLUME_SKEW = 0.6, 0.9
# Small: few genres in a mixture.
_MIXTURE_CONCENTRATION = 1.5
_MIN_LENGTH, _MAX_LENGTH, _LENGTH_SPREAD = 5, 120, 0.6
# Above, no reader's distribution over all items is written out: the next item is drawn without it, by other numbers.
_MOST_ITEMS_WRITTEN_OUT = 10_000
_FIRST_DAY, _DAY = 1_672_531_200, 86_400  # 2023-01-01 UTC


@dataclass(frozen=True)
class SyntheticLog:
    """
    What the generator made.

    Fields:
        items (`(n_users, longest)` int64): Item of each event (0..n_items - 1), -1 beyond a history's end.
        timestamps (`(n_users, longest)` int64): Unix seconds, rising.
        lengths (`(n_users,)` int64): Events of each user.
        best_ranks (`(n_users,)` int64): Rank of each user's last event under the generator's own distribution.
    """

    items: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    best_ranks: npt.NDArray[np.int64]


def generate_log(n_users: int = 3000, n_items: int = 500, seed: int = 0, mean_length: float = 40.0) -> SyntheticLog:
    r"""
    Draw the histories of `n_users` readers over `n_items` volumes in 20 genres.

    The next volume i of genre g, not read so far, has probability proportional to

        (1 - stray) * q(g) * w(i) + stray * popularity(i)
        q(g) = mixture(g) * (same_again if g is the last genre else 1)
        w(i) = go_on * step(i - last volume in g - pace) + (1 - go_on) * popularity(i | g)

    where `mixture` moves linearly from the one the reader begins with to the one they end with, and w is the
    popularity alone in a genre not yet begun. Volumes of a genre form a ring.

    Raises:
        ValueError: if a number is too small for the structure.
    """
    volumes, rest = divmod(n_items, len(GENRES))
    if rest or volumes < 10:
        raise ValueError(f"`n_items` must be a multiple of {len(GENRES)} genres, at least 200, got {n_items}.")
    if n_users < 1 or mean_length < _MIN_LENGTH:
        raise ValueError(
            f"`n_users` must be at least 1 and `mean_length` at least {_MIN_LENGTH}, got {n_users} and {mean_length}."
        )
    rng = np.random.default_rng(seed)
    drawn_lengths = rng.lognormal(np.log(mean_length) - _LENGTH_SPREAD**2 / 2, _LENGTH_SPREAD, n_users).round()
    # Longest first, so that those who still read are always the first rows.
    lengths = np.sort(drawn_lengths.clip(_MIN_LENGTH, min(_MAX_LENGTH, n_items // 4)).astype(np.int64))[::-1]
    draw = _draw_written_out if n_items <= _MOST_ITEMS_WRITTEN_OUT else _draw_by_rejection
    items, best_ranks = draw(rng, lengths, volumes)
    first = _FIRST_DAY + rng.integers(0, 365 * _DAY, (n_users, 1))
    gaps = rng.exponential(2 * _DAY, (n_users, items.shape[1])).astype(np.int64)
    timestamps = first + gaps.cumsum(axis=1)
    order = rng.permutation(n_users)
    return SyntheticLog(items[order], timestamps[order], lengths[order], best_ranks[order])


def _draw_written_out(
    rng: np.random.Generator, lengths: npt.NDArray[np.int64], volumes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw items `(n_users, longest)` and the ranks of the last ones `(n_users,)`, from whole distributions."""
    readers = _Readers(rng, lengths, volumes)
    items = np.full((len(lengths), lengths[0]), -1, dtype=np.int64)
    best_ranks = np.zeros(len(lengths), dtype=np.int64)
    for t in range(lengths[0]):
        active = int(np.count_nonzero(lengths > t))
        probability = readers.next_volume(t, active)
        cumulative = probability.cumsum(axis=1)
        drawn = rng.random(active)[:, None] * cumulative[:, -1:]
        chosen = (cumulative > drawn).argmax(axis=1)
        items[:active, t] = chosen
        readers.read(chosen)

        ending = np.flatnonzero(lengths[:active] == t + 1)
        of_chosen = probability[ending, chosen[ending]][:, None]
        best_ranks[ending] = (probability[ending] >= of_chosen).sum(axis=1) - 1
    return items, best_ranks


def _draw_by_rejection(
    rng: np.random.Generator, lengths: npt.NDArray[np.int64], volumes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw the same from the same law: an item that was read before is drawn again, and ranks are counted by genre."""
    readers = _ReadersOfMany(rng, lengths, volumes)
    items = np.full((len(lengths), lengths[0]), -1, dtype=np.int64)
    best_ranks = np.zeros(len(lengths), dtype=np.int64)
    for t in range(lengths[0]):
        active = int(np.count_nonzero(lengths > t))
        chosen = np.empty(active, dtype=np.int64)
        waiting = np.arange(active)
        while len(waiting):
            chosen[waiting] = readers.draw(rng, t, waiting)
            waiting = waiting[(items[waiting, :t] == chosen[waiting, None]).any(axis=1)]
        ending = np.flatnonzero(lengths[:active] == t + 1)
        if len(ending):
            best_ranks[ending] = readers.ranks(t, ending, chosen[ending], items[ending, :t])
        items[:active, t] = chosen
        readers.read(chosen)
    return items, best_ranks


class _Readers:
    """The hidden state of all readers, and what follows from it. Items are `genre * volumes + volume`."""

    def __init__(self, rng: np.random.Generator, lengths: npt.NDArray[np.int64], volumes: int):
        n_users, n_genres, self.volumes, self.lengths = len(lengths), len(GENRES), volumes, lengths
        genre_popularity = _zipf(n_genres, _GENRE_SKEW)
        self.volume_popularity = rng.permuted(np.tile(_zipf(volumes, _VOLUME_SKEW), (n_genres, 1)), axis=1)  # [g, v]
        self.popularity = (genre_popularity[:, None] * self.volume_popularity).ravel()
        # Where each reader begins and ends, [2, b, g].
        self.mixtures = rng.dirichlet(_MIXTURE_CONCENTRATION * genre_popularity, (2, n_users))
        self.paces = rng.choice(_PACES, size=n_users, p=_PACE_PROBABILITIES)
        self.step = np.zeros(volumes)
        self.step[: len(_STEP_PROBABILITIES)] = _STEP_PROBABILITIES
        self.is_last_genre = np.zeros((n_users, n_genres), dtype=bool)
        self.within = np.tile(self.volume_popularity, (n_users, 1, 1))  # w(i), [b, g, v]
        self.unread = np.ones((n_users, n_genres * volumes), dtype=bool)

    def next_volume(self, t: int, active: int) -> npt.NDArray[np.float64]:
        """Return the distribution (not normalised) of event `t` of the first `active` readers, `(active, n_items)`."""
        progress = (t / (self.lengths[:active] - 1))[:, None]
        mixture = (1 - progress) * self.mixtures[0, :active] + progress * self.mixtures[1, :active]
        q = np.where(self.is_last_genre[:active], _SAME_AGAIN * mixture, mixture)
        expected = (q[:, :, None] * self.within[:active]).reshape(active, -1)
        return ((1 - _STRAY) * expected + _STRAY * self.popularity) * self.unread[:active]

    def read(self, chosen: npt.NDArray[np.int64]) -> None:
        """Let the first readers read these items, `(active,)`."""
        readers = np.arange(len(chosen))
        genre, volume = chosen // self.volumes, chosen % self.volumes
        self.unread[readers, chosen] = False
        self.is_last_genre[readers] = genre[:, None] == np.arange(len(GENRES))
        ahead = (np.arange(self.volumes) - (volume + self.paces[readers])[:, None]) % self.volumes
        self.within[readers, genre] = _GO_ON * self.step[ahead] + (1 - _GO_ON) * self.volume_popularity[genre]


class _ReadersOfMany:
    """The same readers of so many items that nothing `(readers, items)` can be held."""

    def __init__(self, rng: np.random.Generator, lengths: npt.NDArray[np.int64], volumes: int):
        n_users, n_genres, self.volumes, self.lengths = len(lengths), len(GENRES), volumes, lengths
        self.genre_popularity = _zipf(n_genres, _GENRE_SKEW)
        self.by_place = _zipf(volumes, _VOLUME_SKEW)  # most popular first, the same in every genre
        self.volume_at = rng.permuted(np.tile(np.arange(volumes, dtype=np.int32), (n_genres, 1)), axis=1)  # [g, v]
        self.place_of = np.empty_like(self.volume_at)
        np.put_along_axis(self.place_of, self.volume_at, np.arange(volumes, dtype=np.int32)[None], axis=1)
        self.mixtures = rng.dirichlet(_MIXTURE_CONCENTRATION * self.genre_popularity, (2, n_users))
        self.paces = rng.choice(_PACES, size=n_users, p=_PACE_PROBABILITIES)
        self.last_genre = np.full(n_users, -1)
        self.last_volume = np.full((n_users, n_genres), -1, dtype=np.int64)  # -1: not begun

    def draw(self, rng: np.random.Generator, t: int, readers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Draw an item for event `t` of each reader, as if they had read nothing."""
        kinds = np.concatenate([(1 - _STRAY) * self._genres(t, readers), np.full((len(readers), 1), _STRAY)], axis=1)
        kind = _draw_places(rng, kinds)
        strays = kind == len(GENRES)
        genre = np.where(strays, rng.choice(len(GENRES), len(readers), p=self.genre_popularity), kind)
        last = self.last_volume[readers, genre]
        goes_on = ~strays & (last >= 0) & (rng.random(len(readers)) < _GO_ON)
        step = rng.choice(len(_STEP_PROBABILITIES), len(readers), p=_STEP_PROBABILITIES)
        place = np.minimum(np.searchsorted(self.by_place.cumsum(), rng.random(len(readers))), self.volumes - 1)
        ahead = (last + self.paces[readers] + step) % self.volumes
        return genre * self.volumes + np.where(goes_on, ahead, self.volume_at[genre, place])

    def ranks(
        self, t: int, readers: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64], read: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        r"""
        Rank the items `chosen` `(b,)` of event `t` among those not in `read` `(b, t)`; ties count against.

        In a genre all items but three have the same multiple of their popularity, so those above are counted at once.
        """
        q = self._genres(t, readers)
        begun = self.last_volume[readers] >= 0
        popular = (1 - _STRAY) * q * np.where(begun, 1 - _GO_ON, 1) + _STRAY * self.genre_popularity  # [b, g]
        steps = np.arange(len(_STEP_PROBABILITIES))
        ahead = (self.last_volume[readers][:, :, None] + self.paces[readers][:, None, None] + steps) % self.volumes
        genres = np.broadcast_to(np.arange(len(GENRES))[:, None], ahead.shape)
        extra = (1 - _STRAY) * q[:, :, None] * begun[:, :, None] * _GO_ON * np.array(_STEP_PROBABILITIES)  # [b, g, 3]
        ahead_items = genres * self.volumes + ahead
        ahead_base = popular[:, :, None] * self.by_place[self.place_of[genres, ahead]]

        def base(items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            genre, volume = items // self.volumes, items % self.volumes
            return np.take_along_axis(popular, genre, axis=1) * self.by_place[self.place_of[genre, volume]]

        is_chosen = ahead_items == chosen[:, None, None]
        # What differs by rounding alone is a tie.
        least = (base(chosen[:, None])[:, 0] + (extra * is_chosen).sum(axis=(1, 2))) * (1 - 1e-12)
        above = np.searchsorted(-self.by_place, -least[:, None] / popular, side="right").sum(axis=1)
        is_read = (ahead_items[:, :, :, None] == read[:, None, None, :]).any(axis=-1)
        more = (ahead_base + extra >= least[:, None, None]) & (ahead_base < least[:, None, None]) & ~is_read
        return above + more.sum(axis=(1, 2)) - (base(read) >= least[:, None]).sum(axis=1) - 1

    def read(self, chosen: npt.NDArray[np.int64]) -> None:
        """Let the first readers read these items, `(active,)`."""
        readers = np.arange(len(chosen))
        self.last_genre[readers] = chosen // self.volumes
        self.last_volume[readers, chosen // self.volumes] = chosen % self.volumes

    def _genres(self, t: int, readers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return how much each reader is for each genre, `(b, g)`, not normalised."""
        progress = (t / (self.lengths[readers] - 1))[:, None]
        mixture = (1 - progress) * self.mixtures[0, readers] + progress * self.mixtures[1, readers]
        is_last = self.last_genre[readers, None] == np.arange(len(GENRES))
        return np.where(is_last, _SAME_AGAIN * mixture, mixture)


def _draw_places(rng: np.random.Generator, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Draw one of the columns of each row in proportion to its weight."""
    cumulative = weights.cumsum(axis=1)
    drawn = rng.random(len(weights))[:, None] * cumulative[:, -1:]
    return (cumulative > drawn).argmax(axis=1)


def build_synthetic(
    output: str | Path,
    n_users: int = 3000,
    n_items: int = 500,
    seed: int = 0,
    mean_length: float = 40.0,
    fingerprint: str | None = None,
    keep_unread_items: bool = False,
) -> Path:
    r"""
    Write the synthetic dataset as a dataset folder and return its path.

    `statistics.json` and the card say the best reachable metrics on the test items (`reachable`): the generator ranks
    by its true distribution, with the reader's hidden state known. They are the same with and without the history
    excluded, because the generator knows that nobody reads a volume twice. The catalog has the items that somebody
    read, or, with `keep_unread_items`, all of them.

    Raises:
        ValueError: if a number is too small for the structure.
        FileExistsError: if `output` holds something else.
    """
    log = generate_log(n_users, n_items, seed, mean_length)
    happened = log.items >= 0
    counts = np.bincount(log.items[happened], minlength=n_items)
    raw_ids, titles, genres = _names(n_items)
    listed = np.arange(n_items) if keep_unread_items else np.flatnonzero(counts)
    of_listed = pa.table({"count": counts[listed], "item_id": pa.array(raw_ids).take(pa.array(listed))})
    order = pc.sort_indices(of_listed, sort_keys=[("count", "descending"), ("item_id", "ascending")])
    by_popularity = listed[order.to_numpy()]
    row_of = np.zeros(n_items, dtype=np.int32)
    row_of[by_popularity] = np.arange(1, len(by_popularity) + 1)
    catalog = Catalog.from_items(
        [raw_ids[item] for item in by_popularity],
        count=counts[by_popularity],
        title=[titles[item] for item in by_popularity],
        genre=[genres[item] for item in by_popularity],
    )
    offsets = np.concatenate([[0], log.lengths.cumsum()])
    item_rows = row_of[log.items[happened]]
    user_ids = pa.array([f"reader-{user:04d}" for user in range(1, n_users + 1)])
    table = pa.table(
        {
            "user_id": user_ids,
            "item_ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(item_rows)),
            "timestamps": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(log.timestamps[happened])),
        }
    )
    best = ranking_metrics(log.best_ranks)
    statistics: dict[str, Any] = {
        "source": {
            "name": "synthetic",
            "n_users": n_users,
            "n_items": n_items,
            "seed": seed,
            "mean_length": mean_length,
        },
        "fingerprint": fingerprint,
        "reachable": best | {f"{name}_with_seen": value for name, value in best.items()},
    }
    description = _description(statistics)

    def write_sequences(folder: Path) -> None:
        pq.write_table(table, folder / "part-00000.parquet", compression="zstd")

    about = About("Synthetic readers", description)
    return write_dataset_folder(output, catalog, log.lengths, write_sequences, statistics, about)


def _description(statistics: dict[str, Any]) -> str:
    best = statistics["reachable"]
    seed = statistics["source"]["seed"]
    return f"""Histories of made-up readers of made-up serials, drawn by `hf_seqrec.ingest.synthetic` from seed {seed}.
Readers keep to a few genres but like a change, take serials up again after a while, go on in them at their own pace,
drift from one mixture of genres to another, and never read a volume twice.

On the test items (each reader's last), full ranking, the best reachable is HR@10 {best["hr@10"]:.4f} and NDCG@10
{best["ndcg@10"]:.4f}, with and without the history excluded: the generator ranking by its own distribution with the
reader's hidden state known. No recommender can do better except by luck."""


def _names(n_items: int) -> tuple[list[str], list[str], list[str]]:
    """Raw ids, titles and genres of the items in the generator's order."""
    volumes = n_items // len(GENRES)
    places = [(GENRES[item // volumes], item % volumes + 1) for item in range(n_items)]
    raw_ids = [f"{genre.lower()}-{volume:02d}" for genre, volume in places]
    return raw_ids, [f"{genre}, Volume {_number_word(volume)}" for genre, volume in places], [g for g, _ in places]


def _number_word(number: int) -> str:
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return str(number)


def _zipf(n: int, exponent: float) -> npt.NDArray[np.float64]:
    weights = np.arange(1, n + 1) ** -exponent
    return weights / weights.sum()
