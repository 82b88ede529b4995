"""Public datasets: where their authors offer them, which files and columns are events, what a card says of them."""

import importlib
from typing import Any

# The name that `hf-seqrec build` takes, and the class that knows the dataset, imported when it is asked for.
_HOMES = {
    "ml-1m": "ml_1m.MovieLens",
    "amazon": "amazon.AmazonReviews",
    "kuairand": "kuairand.KuaiRand",
    "lfm-1b": "lfm_1b.Lfm1b",
}
PUBLIC_DATASETS = tuple(_HOMES)


def public_dataset(name: str) -> type[Any]:
    """Return the class, a [`~hf_seqrec.ingest.public_datasets.source.PublicDataset`], of one of `PUBLIC_DATASETS`."""
    module, _, class_name = _HOMES[name].partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
