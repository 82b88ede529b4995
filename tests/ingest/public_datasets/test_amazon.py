import gzip
import json
import re

import pytest

from hf_seqrec.data.catalog import Catalog
from hf_seqrec.ingest.public_datasets import amazon


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def review(user, product, time, stars=5.0):
    """Give a line of 2014 and 2018."""
    return json.dumps(
        {
            "reviewerID": user,
            "asin": product,
            "reviewerName": 'Ann "A."',
            "helpful": [3, 3],
            "reviewText": "Works.\nTwice, é.",
            "overall": stars,
            "summary": "Good, but {dear}",
            "unixReviewTime": time,
            "reviewTime": "01 20, 2014",
        }
    )


# The same histories in every format: A saw p2, then p1; B saw p1.
REVIEWS = "\n".join(
    [review("A", "0001", 1390176000), review("A", "B02", 1390089600, 3.0), review("B", "0001", 1390176000)]
)
HISTORIES = {"A": ["B02", "0001"], "B": ["0001"]}
# Python's dictionaries.
PRODUCTS_2014 = (
    "{'asin': '0001', 'title': \"Nature's \\\"Best\\\" Soap\", 'price': 6.99, 'related': {'also_bought': ['B02']}, "
    "'salesRank': {'Beauty': 1}, 'brand': 'Nature', 'categories': [['Beauty', 'Bath']]}\n"
    "{'asin': 'B02', 'imUrl': 'http://ecx.images-amazon.com/images/I/1.jpg', 'categories': [['Beauty']]}\n"
)
PRODUCTS_2018 = "\n".join(
    json.dumps(product)
    for product in (
        {
            "category": ["Games"],
            "title": "Pong é",
            "brand": "Atari",
            "main_cat": "Video Games",
            "price": "$5.00",
            "asin": "0001",
        },
        {"category": ["Games"], "title": "var t = new Date().getTime();", "brand": "", "asin": "B02", "price": ""},
        {"category": ["Games"], "title": "Pong, again", "asin": "0001"},
    )
)


def titles(folder):
    catalog = Catalog.from_pretrained(folder)
    return dict(zip(catalog.table["item_id"].to_pylist(), catalog.table["title"].to_pylist(), strict=True))


class Test2014:
    def test_five_core_and_products(self, run, tmp_path, histories):
        write(tmp_path / "raw" / "reviews_Beauty_5.json.gz", REVIEWS)
        write(tmp_path / "raw" / "meta_Beauty.json.gz", PRODUCTS_2014)
        run("amazon", "--category", "Beauty", "--raw", tmp_path / "raw")
        assert histories() == HISTORIES
        assert titles(tmp_path / "out") == {"0001": 'Nature\'s "Best" Soap', "B02": None}
        assert Catalog.from_pretrained(tmp_path / "out").table["brand"].to_pylist() == ["Nature", None]

    def test_ratings_only(self, run, tmp_path, histories):
        raw = write(
            tmp_path / "ratings_Beauty.csv", "A,0001,5.0,1390176000\nA,B02,3.0,1390089600\nB,0001,5.0,1390176000\n"
        )
        run("amazon", "--category", "Beauty", "--raw", raw)
        assert histories() == HISTORIES
        run("amazon", "--category", "Beauty", "--raw", raw, "--rating_threshold", 4)
        assert histories() == {"A": ["0001"], "B": ["0001"]}

    def test_filtered_reviews_are_preferred(self, run, tmp_path, histories):
        write(tmp_path / "raw" / "reviews_Beauty.json.gz", review("C", "X", 1))
        write(tmp_path / "raw" / "reviews_Beauty_5.json.gz", REVIEWS)
        run("amazon", "--category", "Beauty", "--raw", tmp_path / "raw")
        assert histories() == HISTORIES

    @pytest.mark.parametrize("text", ["{'asin': '0001'\n", "not a product\n", "3\n"])
    def test_products_that_are_none(self, tmp_path, text):
        path = write(tmp_path / "meta_Beauty.json.gz", "{'asin': '0002'}\n" + text)
        with pytest.raises(ValueError, match=r"meta_Beauty\.json\.gz, line 2: it must be a product"):
            list(amazon.read_products(path))

    def test_products_that_were_cut_short(self, tmp_path):
        path = write(tmp_path / "meta_Beauty.json.gz", PRODUCTS_2014)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=r"meta_Beauty\.json\.gz is not a whole \.gz file"):
            list(amazon.read_products(path))

    def test_nothing_in_a_product_is_run(self, tmp_path):
        path = write(tmp_path / "meta_Beauty.json", "{'asin': __import__('os').getcwd()}\n")
        with pytest.raises(ValueError, match="line 1: it must be a product"):
            list(amazon.read_products(path))


class Test2018:
    def test_five_core_and_products(self, run, tmp_path, histories):
        write(tmp_path / "raw" / "Video_Games_5.json.gz", REVIEWS)
        write(tmp_path / "raw" / "meta_Video_Games.json.gz", PRODUCTS_2018)
        run("amazon", "--year", "2018", "--category", "Video_Games", "--raw", tmp_path / "raw")
        assert histories() == HISTORIES
        assert titles(tmp_path / "out") == {"0001": "Pong é", "B02": None}

    def test_ratings_name_the_product_first(self, run, tmp_path, histories):
        text = "0001,A,5.0,1390176000\nB02,A,3.0,1390089600\n0001,B,5.0,1390176000\n"
        raw = write(tmp_path / "Video_Games.csv", text)
        run("amazon", "--year", "2018", "--category", "Video_Games", "--raw", raw)
        assert histories() == HISTORIES


class Test2023:
    HEADER = "user_id,parent_asin,rating,timestamp\n"
    ROWS = ("A,0001,5.0,1588615855070\n", "A,B02,3.0,1588615855069\n", "B,0001,4.0,1588615855070\n")

    @pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
    def test_ratings_in_milliseconds(self, run, tmp_path, histories, ending):
        raw = write(tmp_path / f"All_Beauty{ending}", self.HEADER + "".join(self.ROWS))
        run("amazon", "--year", "2023", "--category", "All_Beauty", "--raw", raw)
        assert histories() == HISTORIES

    def test_the_parts_of_a_split(self, run, tmp_path, histories):
        for part, row in zip(("train", "valid", "test"), self.ROWS, strict=True):
            write(tmp_path / "last_out" / f"All_Beauty.{part}.csv", self.HEADER + row)
        run("amazon", "--year", "2023", "--category", "All_Beauty", "--raw", tmp_path / "last_out")
        assert histories()["A"] == HISTORIES["A"]

    def test_reviews_and_products(self, run, tmp_path, histories):
        lines = []
        for row in self.ROWS:
            user, product, stars, time = row.strip().split(",")
            reviewed = {"rating": float(stars), "title": "Nice", "text": "a\nb", "images": [], "asin": "variant"}
            reviewed |= {"parent_asin": product, "user_id": user, "timestamp": int(time), "verified_purchase": True}
            lines.append(json.dumps(reviewed))
        write(tmp_path / "raw" / "All_Beauty.jsonl.gz", "\n".join(lines))
        product = {
            "main_category": "All Beauty",
            "title": "Soap é",
            "average_rating": 4.8,
            "price": None,
            "store": "Nature",
        }
        product |= {"parent_asin": "0001", "details": {"Size": "1"}, "categories": []}
        write(tmp_path / "raw" / "meta_All_Beauty.jsonl", json.dumps(product))
        run("amazon", "--year", "2023", "--category", "All_Beauty", "--raw", tmp_path / "raw")
        assert histories() == HISTORIES
        assert titles(tmp_path / "out") == {"0001": "Soap é", "B02": None}


@pytest.mark.parametrize(
    ("year", "subset", "reviews", "products"),
    [
        (
            "2014",
            "5core",
            "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Beauty_5.json.gz",
            "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_Beauty.json.gz",
        ),
        (
            "2018",
            "all",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/Beauty.csv",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_Beauty.json.gz",
        ),
        (
            "2023",
            "5core",
            "hf://datasets/McAuley-Lab/Amazon-Reviews-2023/benchmark/5core/rating_only/Beauty.csv",
            "hf://datasets/McAuley-Lab/Amazon-Reviews-2023/raw/meta_categories/meta_Beauty.jsonl",
        ),
    ],
)
def test_addresses(year, subset, reviews, products):
    assert [file.url for file in amazon.published(year, "Beauty", subset, titles=True)] == [reviews, products]
    assert [file.url for file in amazon.published(year, "Beauty", subset, titles=False)] == [reviews]


@pytest.mark.parametrize("year", amazon.YEARS)
@pytest.mark.parametrize("subset", amazon.SUBSETS)
def test_what_is_fetched_is_what_is_looked_for(year, subset):
    name = amazon.published(year, "Beauty", subset, titles=False)[0].url.rsplit("/", 1)[-1].removesuffix(".gz")
    assert name in amazon.review_names(year, "Beauty")


def test_an_unknown_category(run, monkeypatch):
    def download(url, folder, **checks):
        raise FileNotFoundError(f"there is no file at {url}")

    monkeypatch.setattr("hf_seqrec.cli.dataset_building.download", download)
    message = "`category` must be one that https://nijianmo.github.io/amazon/index.html lists, .* got 'Beuty'"
    with pytest.raises(FileNotFoundError, match=message):
        run("amazon", "--year", "2018", "--category", "Beuty")


def test_the_card_says_which(run, tmp_path):
    raw = write(tmp_path / "reviews_Video_Games_5.json", REVIEWS)
    run("amazon", "--category", "Video_Games", "--raw", raw)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert re.search("^# Amazon Video Games .2014.$", card, re.MULTILINE)
    assert "mcauley2015image" in card
