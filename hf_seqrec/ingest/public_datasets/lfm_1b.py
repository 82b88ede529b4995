"""
Build a dataset folder from LFM-1b: 1.09 billion events of what 120,322 users of Last.fm listened to.

    hf-seqrec build lfm-1b --raw LFM-1b.zip --item artist --output data/lfm-1b-artists --last_n 2000

Takes the authors' files (LFM-1b_LEs.txt and the names in LFM-1b_artists.txt and its like) or RecBole's atomic files
(lfm1b-artists.inter). There is nothing to download: the authors do not offer the dataset any more.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset_card import About
from ..log_files import RawFile
from ..unpack import RawSource
from .source import FORMAT_FIELDS, Published, RawTables

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
class Lfm1b:
    """What to recommend."""

    item: str = field(default="track", metadata={"help": "What an event is of.", "choices": list(ITEMS)})

    folder = "lfm-1b"
    format_fields = FORMAT_FIELDS

    def wanted(self) -> list[str]:
        """Return the names of the files that are needed."""
        return [_EVENTS, f"LFM-1b_{self.item}s.txt", f"lfm1b-{self.item}s.inter", f"lfm1b-{self.item}s.item"]

    def published(self) -> list[Published]:
        """
        Raise: nobody offers the dataset.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"`--raw` must name the dataset: LFM-1b.zip, or a folder with {_EVENTS}. Its authors do not offer it for "
            "download any more (http://www.cp.jku.at/datasets/LFM-1b)."
        )

    def tables(self, source: RawSource, work: Path) -> RawTables:
        """Return the events and the names of the items."""
        [events, *_] = files = source.take(_EVENTS, f"lfm1b-{self.item}s.inter")
        is_atomic = ".inter" in events.suffixes
        names = source.find(f"lfm1b-{self.item}s.item" if is_atomic else f"LFM-1b_{self.item}s.txt")
        columns = {
            "user_column": "user_id",
            "item_column": f"{self.item}s_id" if is_atomic else f"{self.item}_id",
            "timestamp_column": "timestamp",
            "timestamp_unit": "s",
        }
        if is_atomic:
            return RawTables(RawFile.open(files), RawFile.open(names) if names else None, columns)
        # Neither file has a header, and a quote in a name is a character like any other.
        log_columns = ["user_id", "artist_id", "album_id", "track_id", "timestamp"]
        log = RawFile.delimited(files, log_columns, delimiter="\t", quote="")
        name_columns = ["item_id", "title"] if self.item == "artist" else ["item_id", "title", "artist_id"]
        items = RawFile.delimited(names, name_columns, delimiter="\t", quote="") if names else None
        return RawTables(log, items, columns)

    def about(self) -> About:
        """Return what the card says of the source."""
        return About(
            name=f"LFM-1b, {self.item}s",
            note=f"What users of Last.fm listened to, in order, by {self.item}.",
            homepage="http://www.cp.jku.at/datasets/LFM-1b",
            licence="Derived work under paragraph 4.1 of the terms of service of Last.fm's API.",
            citation=_CITATION,
        )

    def not_found(self) -> str | None:
        """Return nothing: there is nothing to download."""
        return None
