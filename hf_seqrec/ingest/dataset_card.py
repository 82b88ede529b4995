"""The card of a dataset folder: where it comes from, what is in it, and a picture of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..data.catalog import CATALOG_FILE, Catalog
from ..data.sequences import SEQUENCES_FOLDER

CARD_FILE = "README.md"
PICTURE_FILE = "statistics.png"
_SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


@dataclass(frozen=True)
class About:
    """
    What a card says of a dataset's source.

    Fields:
        name: Heading of the card.
        note: First paragraphs: what the events are.
        homepage: Where the raw log comes from.
        licence: In words. A known identifier of the Hub (`cc-by-4.0`) also goes into the metadata.
        licence_id: That identifier.
        citation: BibTeX.
        command: The command that built the folder.
    """

    name: str
    note: str = ""
    homepage: str | None = None
    licence: str | None = None
    licence_id: str | None = None
    citation: str | None = None
    command: str | None = None

    def source(self) -> dict[str, str]:
        """Return what is known of where the data comes from and on which terms, for the cards of its models."""
        names = ("homepage", "licence", "licence_id", "citation")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def render_card(about: About, catalog: Catalog, statistics: dict[str, Any], has_picture: bool) -> str:
    """Write the card (Markdown with YAML metadata) of a dataset folder with these statistics."""
    n_users, n_events = statistics["n_users"], statistics["n_interactions"]
    size = next((name for limit, name in _SIZE_CATEGORIES if n_users < limit), "100M<n<1B")
    length = statistics["history_length"]
    licence = f"license: {about.licence_id}\n" if about.licence_id else ""
    return f"""---
pretty_name: {json.dumps(about.name, ensure_ascii=False)}
{licence}tags:
- sequential-recommendation
size_categories:
- {size}
configs:
- config_name: sequences
  default: true
  data_files:
  - split: train
    path: {SEQUENCES_FOLDER}/*.parquet
- config_name: catalog
  data_files:
  - split: train
    path: {CATALOG_FILE}
dataset_info:
- config_name: sequences
  features:
  - name: user_id
    dtype: string
  - name: item_ids
    list: int32
  - name: timestamps
    list: int64
- config_name: catalog
  features:
{_features(catalog.table.schema)}
---

# {about.name}

{about.note}

| | |
|---|---|
| users | {n_users:,} |
| items | {statistics["n_items"]:,} |
| interactions | {n_events:,} |
| events per user | {length["min"]:,} to {length["max"]:,}, median {length["median"]:g}, mean {length["mean"]:g} |
| density | {statistics["density"]:.4%} |
| users with fewer than three events | {statistics["n_users_not_evaluated"]:,} (kept for training, not evaluated) |

{_sections(about, statistics, has_picture)}
- `{SEQUENCES_FOLDER}/`: one row per user. `item_ids` are rows of the catalog, oldest first; `timestamps` are Unix
  seconds. Events of the same time stand in the order of the log. Every user's whole history is in the split
  `train`; held-out items are cut from it when it is used (leave-one-out: the last is for test, the last but one for
  validation).
- `{CATALOG_FILE}`: `row` (1 to {statistics["n_items"]:,}; row 0 is padding), `item_id` (the raw id), `count`, and
  what is known about the item. Most popular first, equal counts by raw id; items that were added later stand at the
  end.

```python
from hf_seqrec import leave_one_out, load_sequences

sequences = load_sequences("path/to/this/folder")
train, validation, test = leave_one_out(sequences)[:3]
```
"""


def _sections(about: About, statistics: dict[str, Any], has_picture: bool) -> str:
    parts = []
    if has_picture:
        parts.append(f"![Lengths of the histories, and events of the items by popularity]({PICTURE_FILE})")
    if steps := statistics.get("steps"):
        rows = "".join(
            f"\n| {step['name']} | {step['n_users']:,} | {step['n_items']:,} | {step['n_interactions']:,} |"
            for step in steps
        )
        parts.append(f"| after | users | items | interactions |\n|---|---|---|---|{rows}")
    if skipped := statistics.get("skipped_rows"):
        what = "; ".join(f"{n:,} with {reason}" for reason, n in skipped.items())
        parts.append(f"Malformed rows of the log that were left out: {what}.")
    if about.command:
        parts.append(f"Built with\n\n```\n{about.command}\n```")
    if about.homepage:
        parts.append(f"Source: {about.homepage}")
    if about.licence:
        parts.append(f"Licence of the source: {about.licence}")
    if about.citation:
        parts.append(f"```bibtex\n{about.citation.strip()}\n```")
    return "".join(f"{part}\n\n" for part in parts).rstrip("\n") + "\n" if parts else ""


def draw_statistics(lengths: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], path: Path) -> bool:
    """Draw how long histories are and how popular items; return whether there is matplotlib to do it."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.08, "right": 0.98, "top": 0.96, "bottom": 0.14})
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, 40).round())
    left.hist(lengths, bins=edges if len(edges) > 1 else 1)
    left.axvline(np.median(lengths), color="black", linestyle=":", label=f"median {np.median(lengths):g}")
    left.set(xscale="log", xlabel="events of a user", ylabel="users")
    left.legend()
    most_popular_first = np.sort(counts)[::-1]
    # A line of a thousand points looks the same as one of a million.
    places = np.unique(np.geomspace(1, len(counts), 1000).astype(int)) - 1
    right.plot(places + 1, most_popular_first[places])
    right.set(xscale="log", yscale="symlog", xlabel="item, most popular first", ylabel="events of the item")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    return True


def _features(schema: pa.Schema) -> str:
    return "\n".join(f"  - name: {json.dumps(field.name)}\n    dtype: {field.type}" for field in schema)
