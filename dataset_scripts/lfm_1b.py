"""
Build a dataset folder from LFM-1b: 1.09 billion events of what 120,322 users of Last.fm listened to.

    python dataset_scripts/lfm_1b.py --raw LFM-1b.zip --item artist --output data/lfm-1b-artists --last_n 2000

Takes the authors' files (LFM-1b_LEs.txt and the names in LFM-1b_artists.txt and its like) or RecBole's atomic files
(lfm1b-artists.inter). There is nothing to download: the authors do not offer the dataset any more.
"""

from dataclasses import dataclass, field

from hf_seqrec.cli.dataset_script import build, known_columns, open_source, parse
from hf_seqrec.ingest.dataset_card import About
from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.unpack import RawSource

ITEMS = ("artist", "album", "track")
_EVENTS = "LFM-1b_LEs.txt"
_CITATION = """@inproceedings{schedl2016lfm1b,
  title = {The LFM-1b Dataset for Music Retrieval and Recommendation},
  author = {Schedl, Markus},
  booktitle = {Proceedings of the 2016 ACM International Conference on Multimedia Retrieval},
  pages = {103--110},
  year = {2016},
  doi = {10.1145/2911996.2912004}
}"""


@dataclass
class Lfm1bArguments:
    """What to recommend."""

    item: str = field(default="track", metadata={"help": "What an event is of.", "choices": list(ITEMS)})


def wanted(item: str) -> list[str]:
    """Return patterns of the files that are needed."""
    return [_EVENTS, f"LFM-1b_{item}s.txt", f"lfm1b-{item}s.inter", f"lfm1b-{item}s.item"]


def tables(source: RawSource, item: str) -> tuple[RawFile, str, RawFile | None]:
    """Return the events, the column of their items, and the names of the items."""
    [events, *_] = files = source.take(_EVENTS, f"lfm1b-{item}s.inter")
    names = source.find(f"lfm1b-{item}s.item" if ".inter" in events.suffixes else f"LFM-1b_{item}s.txt")
    if ".inter" in events.suffixes:
        return RawFile.open(files), f"{item}s_id", RawFile.open(names) if names else None
    # Neither file has a header, and a quote in a name is a character like any other.
    columns = ["user_id", "artist_id", "album_id", "track_id", "timestamp"]
    log = RawFile.delimited(files, columns, delimiter="\t", quote="")
    name_columns = ["item_id", "title"] if item == "artist" else ["item_id", "title", "artist_id"]
    return log, f"{item}_id", RawFile.delimited(names, name_columns, delimiter="\t", quote="") if names else None


def about(item: str) -> About:
    """What the card says of the source."""
    return About(
        name=f"LFM-1b, {item}s",
        note=f"What users of Last.fm listened to, in order, by {item}.",
        homepage="http://www.cp.jku.at/datasets/LFM-1b",
        licence="Derived work under paragraph 4.1 of the terms of service of Last.fm's API.",
        citation=_CITATION,
    )


def main() -> None:
    """Build and say what came out."""
    options, paths, arguments, build_arguments = parse(__doc__, Lfm1bArguments)
    if paths.raw is None:
        raise SystemExit(
            f"`--raw` must name the dataset: LFM-1b.zip, or a folder with {_EVENTS}. Its authors do not offer it for "
            "download any more (http://www.cp.jku.at/datasets/LFM-1b)."
        )
    with open_source(paths, "lfm-1b", wanted(options.item)) as (source, _):
        log, item_column, names = tables(source, options.item)
        arguments = known_columns(
            arguments,
            user_column="user_id",
            item_column=item_column,
            timestamp_column="timestamp",
            timestamp_unit="s",
            items=None,
        )
        build(log, paths, arguments, build_arguments, about(options.item), names)


if __name__ == "__main__":
    main()
