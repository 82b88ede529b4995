"""What is known of a public dataset, whichever it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..dataset_card import About
from ..log_files import RawFile
from ..unpack import RawSource

# Fields of `InteractionsArguments` that follow from a dataset's format.
FORMAT_FIELDS = ("user_column", "item_column", "timestamp_column", "timestamp_unit", "items")


@dataclass(frozen=True)
class Published:
    """A file that a dataset's authors offer: its address, and what they say about its content."""

    url: str
    md5: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class RawTables:
    r"""
    What a dataset's files hold.

    Fields:
        log (`RawFile`): The events.
        items (`RawFile`, *optional*): What is known about the items.
        columns (`dict[str, Any]`): Fields of `InteractionsArguments` that say how to read the log.
        where (`list[str]`): Which rows are events; all if empty.
    """

    log: RawFile
    items: RawFile | None
    columns: dict[str, Any]
    where: list[str] = field(default_factory=list)


class PublicDataset(Protocol):
    """A dataclass whose fields are the options of a public dataset (which variant, what counts as an event)."""

    @property
    def folder(self) -> str:
        """What to call the folder of the downloads."""

    @property
    def format_fields(self) -> tuple[str, ...]:
        """Fields of `InteractionsArguments` that are known, so that nobody may give them."""

    def wanted(self) -> list[str]:
        """Return patterns of the names of the files that are needed."""

    def published(self) -> list[Published]:
        """Return the files that the authors offer."""

    def tables(self, source: RawSource, work: Path) -> RawTables:
        """Find the tables among the raw files; what has to be made of them goes into `work`."""

    def about(self) -> About:
        """Return what the card says of the source."""

    def not_found(self) -> str | None:
        """Return what may be wrong where the authors do not offer a file."""
