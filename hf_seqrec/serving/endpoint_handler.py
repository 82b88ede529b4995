"""
The handler of a Hugging Face Inference Endpoint: travels in a model's repository as handler.py, and needs no package.

`hf-seqrec endpoint CHECKPOINT` puts it there. It runs the model's own code from the same repository. A
request and its answer, or lists of both:

    {"inputs": {"history": ["1193", "661"]}, "parameters": {"top_k": 1}}
    {"recommendations": [{"item_id": "914", "score": 7.2, "title": "My Fair Lady"}], "source": "model",
     "unknown_items": 0, "unknown_candidates": 0}

`source` is "popularity" where the catalog has no item of the history.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModel

# What one request may ask for.
MOST_HISTORIES = 256
MOST_ITEMS = 10_000


class EndpointHandler:
    r"""
    Answers requests with recommendations.

    Args:
        path (`str`): The folder of the repository, as the endpoint has downloaded it.
    """

    def __init__(self, path: str = "") -> None:
        model = AutoModel.from_pretrained(path, trust_remote_code=True)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        table = pq.read_table(Path(path) / "catalog.parquet")
        self.item_ids: list[str] = table["item_id"].to_pylist()
        if len(self.item_ids) != model.config.n_items:
            raise ValueError(
                f"catalog.parquet has {len(self.item_ids)} items, but the model has {model.config.n_items}. One of "
                "the two files belongs to another checkpoint; put the right one into the repository."
            )
        titles = table["title"].to_pylist() if "title" in table.column_names else self.item_ids
        self.titles = [str(title) if title else item_id for title, item_id in zip(titles, self.item_ids, strict=True)]
        self.counts: list[int] = table["count"].to_pylist()
        self.by_popularity = (np.argsort(-table["count"].to_numpy(), kind="stable") + 1).tolist()
        self.row_of = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}

    def __call__(self, data: dict[str, Any]) -> Any:
        r"""
        Recommend to one history, or to a list of them.

        Args:
            data (`dict`): `inputs`: `{"history": [raw ids, oldest first]}`, or a list of these. `parameters`,
                *optional*: `top_k` (10), `exclude_seen` (true), `candidates` (raw ids; all items), `exclude` (raw
                ids that are never recommended; none).

        Raises:
            ValueError: if the request is none of these, or asks for too much; the endpoint answers 400 with it.
        """
        inputs, parameters = data.get("inputs"), data.get("parameters") or {}
        try:
            options = _Options(**parameters)
        except TypeError as error:
            raise ValueError(
                f"`parameters` must be top_k, exclude_seen, candidates, exclude, got {parameters!r:.100}."
            ) from error
        if not 1 <= options.top_k <= len(self.item_ids):
            raise ValueError(f"`top_k` must be between 1 and the {len(self.item_ids)} items, got {options.top_k}.")
        allowed, unknown_candidates = self._allowed(options)
        if not isinstance(inputs, list):
            return self._recommend(inputs, options, allowed) | {"unknown_candidates": unknown_candidates}
        if len(inputs) > MOST_HISTORIES:
            raise ValueError(f"`inputs` must be at most {MOST_HISTORIES} histories, got {len(inputs)}. Send fewer.")
        return [
            self._recommend(history, options, allowed) | {"unknown_candidates": unknown_candidates}
            for history in inputs
        ]

    def _allowed(self, options: "_Options") -> tuple[set[int] | None, int]:
        """Return the rows that may be recommended, `None` for all, and how many candidates are unknown."""
        excluded = set(self._rows(options.exclude or [])[0])
        if options.candidates is None:
            return set(self.row_of.values()) - excluded if excluded else None, 0
        rows, unknown = self._rows(options.candidates)
        if not rows:
            raise ValueError("`candidates` must be items of this model's catalog, none of those given is.")
        return set(rows) - excluded, unknown

    def _recommend(self, inputs: Any, options: "_Options", allowed: set[int] | None) -> dict[str, Any]:
        if not isinstance(inputs, dict) or inputs.keys() != {"history"}:
            raise ValueError(
                f'`inputs` must be {{"history": [raw item ids]}} or a list of these, got {inputs!r:.100}.'
            )
        rows, unknown = self._rows(inputs["history"])
        n_allowed = len(self.item_ids) if allowed is None else len(allowed)
        seen = set(rows) if options.exclude_seen else set()
        left = min(options.top_k, n_allowed - len(seen if allowed is None else seen & allowed))
        if not rows:
            best = [row for row in self.by_popularity if allowed is None or row in allowed][: options.top_k]
            scores = [float(self.counts[row - 1]) for row in best]
        elif left == 0:
            best, scores = [], []
        else:
            device = self.model.device
            found = self.model.recommend(
                torch.tensor([rows], device=device),
                top_k=left,
                exclude_seen=options.exclude_seen,
                candidate_rows=None if allowed is None else torch.tensor(sorted(allowed), device=device),
            )
            best, scores = (part[0].tolist() for part in found)
            if not all(map(math.isfinite, scores)):
                raise ValueError(
                    "The scores of this history are NaN or infinite, so nothing can be recommended. The weights are "
                    "damaged or the training diverged: check the loss and lower the learning rate."
                )
        return {
            "recommendations": [
                {"item_id": self.item_ids[row - 1], "score": score, "title": self.titles[row - 1]}
                for row, score in zip(best, scores, strict=True)
            ],
            "source": "model" if rows else "popularity",
            "unknown_items": unknown,
        }

    def _rows(self, item_ids: Any) -> tuple[list[int], int]:
        """Look raw ids up: the rows of those that the catalog has, and how many it has not."""
        is_list = isinstance(item_ids, list) and len(item_ids) <= MOST_ITEMS
        if not is_list or not all(isinstance(item_id, str | int) for item_id in item_ids):
            raise ValueError(f"Items must be a list of at most {MOST_ITEMS} raw ids, got {item_ids!r:.100}.")
        rows = [self.row_of[str(item_id)] for item_id in item_ids if str(item_id) in self.row_of]
        return rows, len(item_ids) - len(rows)


class _Options:
    def __init__(
        self,
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: list[str | int] | None = None,
        exclude: list[str | int] | None = None,
    ) -> None:
        if not isinstance(top_k, int) or isinstance(top_k, bool) or not isinstance(exclude_seen, bool):
            raise TypeError
        self.top_k, self.exclude_seen, self.candidates, self.exclude = top_k, exclude_seen, candidates, exclude
