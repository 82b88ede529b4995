"""
Build a dataset folder from KuaiRand: which short videos people watched on Kuaishou.

    hf-seqrec build kuairand --variant pure --output data/kuairand-pure --last_n 2000

An event is a view with a signal, by default a click (`is_click=1`); `--signal all` takes every view. The log of
randomly exposed videos is left out without `--random_log`: nobody chose to show these.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset_card import About
from ..log_files import RawFile
from ..unpack import RawSource
from .source import FORMAT_FIELDS, Published, RawTables

_SITE = "https://zenodo.org/records/10439422/files"
# The checksums are those of https://github.com/chongminggao/KuaiRand, its README.
PUBLISHED = {
    "pure": Published(f"{_SITE}/KuaiRand-Pure.tar.gz", md5="0820331067a3784d9691136f772b35a7"),
    "1k": Published(f"{_SITE}/KuaiRand-1K.tar.gz", md5="6b0b9c8222d67fcd4c676218edca3f1f"),
    "27k": Published(f"{_SITE}/KuaiRand-27K.tar.gz", md5="3e3c799a24e2d23a4d2c757fbf9adf59"),
}
# Of both periods, in their order; the largest variant has each in two parts.
_PERIODS = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
_RANDOM = "log_random_4_22_to_5_08"
_PARTS = {"pure": ("_pure",), "1k": ("_1k",), "27k": ("_27k_part1", "_27k_part2")}
SIGNALS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "long_view", "is_profile_enter", "all",
)  # fmt: skip
_CITATION = """@inproceedings{gao2022kuairand,
  title = {KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos},
  author = {Gao, Chongming and Li, Shijun and Zhang, Yuan and Chen, Jiawei and Li, Biao and Lei, Wenqiang and
            Jiang, Peng and He, Xiangnan},
  booktitle = {Proceedings of the 31st ACM International Conference on Information and Knowledge Management},
  pages = {3953--3957},
  year = {2022},
  doi = {10.1145/3511808.3557624}
}"""


@dataclass
class KuaiRand:
    """Which KuaiRand, and what counts as an event."""

    variant: str = field(
        default="pure",
        metadata={
            "help": "`pure`: all users, the 7,583 videos that were also shown at random; `1k`: 1,000 users, all their "
            "videos; `27k`: everything (46 GB).",
            "choices": list(PUBLISHED),
        },
    )
    signal: str = field(
        default="is_click", metadata={"help": "Which views count; `all` of them.", "choices": list(SIGNALS)}
    )
    random_log: bool = field(default=False, metadata={"help": "Take the views of randomly exposed videos as well."})

    format_fields = FORMAT_FIELDS

    @property
    def folder(self) -> str:
        """What to call the folder of the downloads."""
        return f"kuairand-{self.variant}"

    def wanted(self) -> list[str]:
        """Return the names of the files that are needed."""
        return [*self._log_names(), f"video_features_basic_{self.variant}.csv"]

    def published(self) -> list[Published]:
        """Return the archive that the authors offer."""
        return [PUBLISHED[self.variant]]

    def tables(self, source: RawSource, work: Path) -> RawTables:
        """Return the log, every part of it, and what is known about the videos."""
        log = [path for name in self._log_names() for path in source.take(name)]
        videos = source.find(f"video_features_basic_{self.variant}.csv")
        columns = {
            "user_column": "user_id",
            "item_column": "video_id",
            "timestamp_column": "time_ms",
            "timestamp_unit": "ms",
        }
        where = [] if self.signal == "all" else [f"{self.signal}=1"]
        return RawTables(RawFile.open(log), RawFile.open(videos) if videos else None, columns, where)

    def about(self) -> About:
        """Return what the card says of the source."""
        views = "viewed" if self.signal == "all" else f"viewed with `{self.signal}` = 1"
        return About(
            name=f"KuaiRand-{self.variant.upper() if self.variant != 'pure' else 'Pure'}",
            note=f"Short videos in the order in which users of Kuaishou {views}, April and May 2022.",
            homepage="https://kuairand.com",
            licence="CC BY-SA 4.0",
            licence_id="cc-by-sa-4.0",
            citation=_CITATION,
        )

    def not_found(self) -> str | None:
        """Return nothing: the addresses are known."""
        return None

    def _log_names(self) -> list[str]:
        """Return the names of the log's files, oldest first."""
        names = [f"{period}{part}.csv" for period in _PERIODS for part in _PARTS[self.variant]]
        return [*names, f"{_RANDOM}_{self.variant}.csv"] if self.random_log else names
