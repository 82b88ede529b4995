"""
Build a dataset folder from the Amazon reviews of 2014, 2018 or 2023, any category.

    hf-seqrec build amazon --year 2014 --category Beauty --output data/amazon-beauty
    hf-seqrec build amazon --year 2023 --category Video_Games --subset all --output data/video-games

Every review is an event. `--subset 5core` takes what the authors have filtered already: users and items with five
reviews or more. The authors publish no checksums for 2014 and 2018; the files of 2023 come from the Hub, which does.
"""

import ast
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..dataset_card import About
from ..log_files import RawFile
from ..unpack import RawSource
from .source import FORMAT_FIELDS, Published, RawTables

YEARS = ("2014", "2018", "2023")
SUBSETS = ("5core", "all")
_SITE_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_SITE_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
_SITE_2023 = "hf://datasets/McAuley-Lab/Amazon-Reviews-2023"
_HOMEPAGES = {
    "2014": "https://jmcauley.ucsd.edu/data/amazon/index_2014.html",
    "2018": "https://nijianmo.github.io/amazon/index.html",
    "2023": "https://amazon-reviews-2023.github.io",
}
# The columns of ratings without reviews, which have no header; the two years differ in their order.
_RATING_COLUMNS = {
    "2014": ["reviewerID", "asin", "overall", "unixReviewTime"],
    "2018": ["asin", "reviewerID", "overall", "unixReviewTime"],
}
_REVIEW_COLUMNS = {
    "2014": ["reviewerID", "asin", "overall", "unixReviewTime"],
    "2018": ["reviewerID", "asin", "overall", "unixReviewTime"],
    "2023": ["user_id", "parent_asin", "rating", "timestamp"],
}
_PRODUCT_COLUMNS = {
    "2014": ["asin", "title", "brand", "price"],
    "2018": ["asin", "title", "brand", "main_cat", "price"],
    "2023": ["parent_asin", "title", "store", "main_category", "price"],
}
_CITATIONS = {
    "2014": """@inproceedings{mcauley2015image,
  title = {Image-Based Recommendations on Styles and Substitutes},
  author = {McAuley, Julian and Targett, Christopher and Shi, Qinfeng and van den Hengel, Anton},
  booktitle = {Proceedings of the 38th International ACM SIGIR Conference},
  pages = {43--52},
  year = {2015},
  doi = {10.1145/2766462.2767755}
}""",
    "2018": """@inproceedings{ni2019justifying,
  title = {Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects},
  author = {Ni, Jianmo and Li, Jiacheng and McAuley, Julian},
  booktitle = {Proceedings of EMNLP-IJCNLP},
  pages = {188--197},
  year = {2019},
  doi = {10.18653/v1/D19-1018}
}""",
    "2023": """@article{hou2024bridging,
  title = {Bridging Language and Items for Retrieval and Recommendation},
  author = {Hou, Yupeng and Li, Jiacheng and He, Zhankui and Yan, An and Chen, Xiusi and McAuley, Julian},
  journal = {arXiv preprint arXiv:2403.03952},
  year = {2024}
}""",
}


@dataclass
class AmazonReviews:
    """Which reviews."""

    category: str = field(metadata={"help": "As in the names of the files, such as Video_Games."})
    year: str = field(default="2014", metadata={"help": "Until when they go.", "choices": list(YEARS)})
    subset: str = field(
        default="5core",
        metadata={
            "help": "What to fetch: reviews filtered to five of every user and item, or all.",
            "choices": SUBSETS,
        },
    )
    titles: bool = field(
        default=True, metadata={"help": "Whether to fetch what is known about the products (up to several GB)."}
    )

    format_fields = (*FORMAT_FIELDS, "rating_column")

    @property
    def folder(self) -> str:
        """What to call the folder of the downloads."""
        return f"amazon-{self.year}"

    def wanted(self) -> list[str]:
        """Return patterns of the names of the files that are needed."""
        products = [f"meta_{self.category}.json", f"meta_{self.category}.jsonl"]
        return [*review_names(self.year, self.category), *products]

    def published(self) -> list[Published]:
        """Return the addresses of the reviews and, if wanted, of what is known about the products."""
        return published(self.year, self.category, self.subset, self.titles)

    def tables(self, source: RawSource, work: Path) -> RawTables:
        """Return the reviews, and what is known about the products."""
        user, item, rating, timestamp = _REVIEW_COLUMNS[self.year]
        columns = {
            "user_column": user,
            "item_column": item,
            "rating_column": rating,
            "timestamp_column": timestamp,
            "timestamp_unit": "ms" if self.year == "2023" else "s",
        }
        products = _products(source, self.year, self.category, work)
        return RawTables(_reviews(source, self.year, self.category), products, columns)

    def about(self) -> About:
        """Return what the card says of the source."""
        return About(
            name=f"Amazon {self.category.replace('_', ' ')} ({self.year})",
            note="Products in the order in which people reviewed them on Amazon.",
            homepage=_HOMEPAGES[self.year],
            licence="None is stated; the authors offer the reviews for research.",
            citation=_CITATIONS[self.year],
        )

    def not_found(self) -> str | None:
        """Return what categories there are."""
        return (
            f"`category` must be one that {_HOMEPAGES[self.year]} lists, written as in its files' names, got "
            f"{self.category!r}"
        )


def published(year: str, category: str, subset: str, titles: bool) -> list[Published]:
    """Return the addresses of the reviews and, if wanted, of what is known about the products."""
    five = subset == "5core"
    reviews, products = {
        "2014": (
            f"{_SITE_2014}/{f'reviews_{category}_5.json.gz' if five else f'ratings_{category}.csv'}",
            f"{_SITE_2014}/meta_{category}.json.gz",
        ),
        "2018": (
            f"{_SITE_2018}/categoryFilesSmall/{category}{'_5.json.gz' if five else '.csv'}",
            f"{_SITE_2018}/metaFiles2/meta_{category}.json.gz",
        ),
        "2023": (
            f"{_SITE_2023}/benchmark/{'5core' if five else '0core'}/rating_only/{category}.csv",
            f"{_SITE_2023}/raw/meta_categories/meta_{category}.jsonl",
        ),
    }[year]
    return [Published(reviews), Published(products)] if titles else [Published(reviews)]


def review_names(year: str, category: str) -> list[str]:
    """Return patterns of the files that hold the reviews, the filtered ones first."""
    if year == "2014":
        return [f"reviews_{category}_5.json", f"reviews_{category}.json", f"ratings_{category}.csv"]
    if year == "2018":
        return [f"{category}_5.json", f"{category}.json", f"{category}.csv"]
    # The parts of a split are a whole again when read together.
    return [f"{category}.csv", f"{category}.jsonl", f"{category}.*.csv"]


def _reviews(source: RawSource, year: str, category: str) -> RawFile:
    """Return the reviews, whichever of the published files hold them."""
    files = source.take(*review_names(year, category))
    ending = files[0].name.removesuffix(".gz").rsplit(".", 1)[-1]
    if ending != "csv":
        return RawFile.json_lines(files, _REVIEW_COLUMNS[year])
    return RawFile.delimited(files, _RATING_COLUMNS.get(year), delimiter=",")


def _products(source: RawSource, year: str, category: str, work: Path) -> RawFile | None:
    """Return what is known about the products, if it is there."""
    files = source.find(f"meta_{category}.json" if year != "2023" else f"meta_{category}.jsonl")
    if not files:
        return None
    columns = _PRODUCT_COLUMNS[year]
    if year == "2023":
        return RawFile.json_lines(files, columns)
    path = work / f"products_{category}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for product in read_products(files[0]):
            file.write(json.dumps({name: product.get(name) for name in columns}) + "\n")
    return RawFile.json_lines(path, columns)


def read_products(path: Path) -> Iterator[dict[str, Any]]:
    """
    Yield the products of 2014 and 2018.

    Those of 2014 are Python's dictionaries, not JSON. Some titles of 2018 are pieces of a web page's program, which
    its authors tell by `getTime`: they become `None`.

    Raises:
        ValueError: if a line is neither, or the file was cut short.
    """
    lines = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                lines += 1
                product = json.loads(line) if line.startswith('{"') else ast.literal_eval(line)
                if "getTime" in (product.get("title") or ""):
                    product["title"] = None
                yield product
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole .gz file: {error}. Fetch it again.") from error
    except (ValueError, SyntaxError, AttributeError) as error:
        raise ValueError(f"{path}, line {lines}: it must be a product ({error}). Fetch the file again.") from error
