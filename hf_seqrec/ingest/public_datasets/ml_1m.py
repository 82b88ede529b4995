"""
Build a dataset folder from MovieLens 1M, 20M or 32M.

    hf-seqrec build ml-1m --output data/ml-1m --min_user_events 5 --min_item_events 5

Every rating is an event; `--rating_threshold 4` keeps those of four stars or more.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset_card import About
from ..log_files import RawFile
from ..unpack import RawSource
from .source import FORMAT_FIELDS, Published, RawTables

_SITE = "https://files.grouplens.org/datasets/movielens"
# The checksums that GroupLens publishes beside each file, in <name>.zip.md5.
PUBLISHED = {
    "1m": Published(f"{_SITE}/ml-1m.zip", md5="c4d9eecfca2ab87c1945afe126590906", size=5917549),
    "20m": Published(f"{_SITE}/ml-20m.zip", md5="cd245b17a1ae2cc31bb14903e1204af3", size=198702078),
    "32m": Published(f"{_SITE}/ml-32m.zip", md5="d472be332d4daa821edc399621853b57", size=238950008),
}
_LICENCE = "GroupLens' own, for research and not for revenue; "
_CITATION = """@article{harper2015movielens,
  title = {The MovieLens Datasets: History and Context},
  author = {Harper, F. Maxwell and Konstan, Joseph A.},
  journal = {ACM Transactions on Interactive Intelligent Systems},
  volume = {5},
  number = {4},
  pages = {19:1--19:19},
  year = {2015},
  doi = {10.1145/2827872}
}"""


@dataclass
class MovieLens:
    """Which MovieLens."""

    variant: str = field(default="1m", metadata={"help": "Millions of ratings.", "choices": list(PUBLISHED)})

    format_fields = FORMAT_FIELDS

    @property
    def folder(self) -> str:
        """What to call the folder of the downloads."""
        return f"ml-{self.variant}"

    def wanted(self) -> list[str]:
        """Return the names of the files that are needed."""
        return ["ratings.dat", "movies.dat", "ratings.csv", "movies.csv"]

    def published(self) -> list[Published]:
        """Return the archive that GroupLens offers."""
        return [PUBLISHED[self.variant]]

    def tables(self, source: RawSource, work: Path) -> RawTables:
        """Return the ratings and, where they are there, the films."""
        known = {"user_column": None, "item_column": None, "timestamp_column": None, "timestamp_unit": "s"}
        if self.variant != "1m":
            films = source.find("movies.csv")
            ratings = RawFile.open(source.take("ratings.csv"))
            return RawTables(ratings, RawFile.open(films) if films else None, known)
        # No header, and films such as "Misérables, Les (1995)" in Latin-1.
        form = {"delimiter": "::", "quote": "", "encoding": "latin-1"}
        films = source.find("movies.dat")
        ratings = RawFile.delimited(source.take("ratings.dat"), ["user_id", "item_id", "rating", "timestamp"], **form)
        items = RawFile.delimited(films, ["item_id", "title", "genres"], **form) if films else None
        return RawTables(ratings, items, known)

    def about(self) -> About:
        """Return what the card says of the source."""
        terms = "only with permission." if self.variant == "1m" else "under the same terms."
        return About(
            name=f"MovieLens {self.variant.upper()}",
            note="Films in the order in which people rated them on MovieLens.",
            homepage=f"https://grouplens.org/datasets/movielens/{self.variant}/",
            licence=f"{_LICENCE}redistribution {terms}",
            citation=_CITATION,
        )

    def not_found(self) -> str | None:
        """Return nothing: the addresses are known."""
        return None
