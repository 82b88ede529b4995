"""
Build a dataset folder from MovieLens 1M, 20M or 32M.

    python dataset_scripts/ml_1m.py --output data/ml-1m --min_user_events 5 --min_item_events 5

Every rating is an event; `--rating_threshold 4` keeps those of four stars or more.
"""

from dataclasses import dataclass, field

from hf_seqrec.cli.dataset_script import Published, build, known_columns, open_source, parse
from hf_seqrec.ingest.dataset_card import About
from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.unpack import RawSource

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
class MovieLensArguments:
    """Which MovieLens."""

    variant: str = field(
        default="1m", metadata={"help": "The millions of ratings that it has.", "choices": list(PUBLISHED)}
    )


def tables(source: RawSource, variant: str) -> tuple[RawFile, RawFile | None]:
    """Return the ratings and, where they are there, the films."""
    if variant != "1m":
        films = source.find("movies.csv")
        return RawFile.open(source.take("ratings.csv")), RawFile.open(films) if films else None
    # No header, and films such as "Misérables, Les (1995)" in Latin-1.
    form = {"delimiter": "::", "quote": "", "encoding": "latin-1"}
    films = source.find("movies.dat")
    ratings = RawFile.delimited(source.take("ratings.dat"), ["user_id", "item_id", "rating", "timestamp"], **form)
    return ratings, RawFile.delimited(films, ["item_id", "title", "genres"], **form) if films else None


def about(variant: str) -> About:
    """What the card says of the source."""
    terms = "redistribution only with permission." if variant == "1m" else "redistribution under the same terms."
    return About(
        name=f"MovieLens {variant.upper()}",
        note="Films in the order in which people rated them on MovieLens.",
        homepage=f"https://grouplens.org/datasets/movielens/{variant}/",
        licence=_LICENCE + terms,
        citation=_CITATION,
    )


def main() -> None:
    """Build and say what came out."""
    options, paths, arguments, build_arguments = parse(__doc__, MovieLensArguments)
    arguments = known_columns(
        arguments, user_column=None, item_column=None, timestamp_column=None, timestamp_unit="s", items=None
    )
    wanted = ["ratings.dat", "movies.dat", "ratings.csv", "movies.csv"]
    with open_source(paths, f"ml-{options.variant}", wanted, [PUBLISHED[options.variant]]) as (source, _):
        ratings, films = tables(source, options.variant)
        build(ratings, paths, arguments, build_arguments, about(options.variant), films)


if __name__ == "__main__":
    main()
