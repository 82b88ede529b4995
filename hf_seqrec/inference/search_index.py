"""
Approximate search over the items of a large catalog, with FAISS; needs the extra `ann`.

    hf-seqrec index runs/my-shop --kind hnsw

builds an index beside a checkpoint, and measures how much of the exact top 10 it finds. `model.recommend` stays exact,
a chunk of the catalog at a time; an index is for catalogs where that takes too long.
"""

import hashlib
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..installing import install_hint
from ..models.modeling_seqrec import SeqRecPreTrainedModel

INDEX_FILE = "search_index.faiss"
# Beside it: of which model it is, and how it was built.
INDEX_DESCRIPTION = "search_index.json"
KINDS = ("hnsw", "ivf")

# Links of an item in the graph, and candidates while it is built: FAISS's own advice for 10^5 to 10^7 vectors.
_LINKS, _BUILD_CANDIDATES = 32, 100
# Vectors from which FAISS learns one list's centre; more do not help.
_TRAINING_PER_LIST = 64


class SearchIndex:
    r"""
    Finds the items with about the highest scores of a model, without scoring them all.

    A score is an inner product of a history's state and an item's output embedding; a bias is one more coordinate.

    Args:
        faiss_index (`faiss.Index`): Item of row r at r - 1.
        fingerprint (`str`): Of the embeddings that it was built from, see [`fingerprint`].
        kind (`str`): One of [`KINDS`].
    """

    def __init__(self, faiss_index: Any, fingerprint: str, kind: str) -> None:
        self.faiss_index = faiss_index
        self.fingerprint = fingerprint
        self.kind = kind

    @classmethod
    def build(cls, model: SeqRecPreTrainedModel, kind: str = "hnsw") -> "SearchIndex":
        r"""
        Index the items of a model.

        Args:
            model ([`SeqRecPreTrainedModel`]): Whose output embeddings are indexed.
            kind (`str`, *optional*, defaults to `"hnsw"`): `"hnsw"`, a graph of neighbours: slow to build, quick to
                search; or `"ivf"`, lists around centres: quick to build.

        Raises:
            ImportError: if FAISS is not installed.
            ValueError: if there is no such kind.
        """
        faiss = _faiss()
        if kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
        vectors = _item_vectors(model)
        n_items, width = vectors.shape
        if kind == "hnsw":
            index = faiss.index_factory(width, f"HNSW{_LINKS},Flat", faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _BUILD_CANDIDATES
        else:
            n_lists = max(1, min(round(4 * math.sqrt(n_items)), n_items // 39))
            index = faiss.index_factory(width, f"IVF{n_lists},Flat", faiss.METRIC_INNER_PRODUCT)
            chosen = np.random.default_rng(0).permutation(n_items)[: n_lists * _TRAINING_PER_LIST]
            index.train(vectors[np.sort(chosen)])
        index.add(vectors)
        return cls(index, fingerprint(model), kind)

    def save(self, folder: str | Path) -> Path:
        """Write the index, and of which model it is, into a checkpoint folder; return the path of the index."""
        faiss = _faiss()
        folder = Path(folder)
        description = {"fingerprint": self.fingerprint, "kind": self.kind, "n_items": self.faiss_index.ntotal}
        # First away with what says that an index is whole, last it comes back.
        (folder / INDEX_DESCRIPTION).unlink(missing_ok=True)
        written = folder / f".{INDEX_FILE}.tmp"
        faiss.write_index(self.faiss_index, str(written))
        os.replace(written, folder / INDEX_FILE)
        (folder / INDEX_DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        return folder / INDEX_FILE

    @classmethod
    def load(cls, folder: str | Path, model: SeqRecPreTrainedModel) -> "SearchIndex":
        r"""
        Read the index of a checkpoint folder, and see that it is this model's.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is of other weights, or damaged.
        """
        faiss = _faiss()
        folder = Path(folder)
        if not (folder / INDEX_DESCRIPTION).is_file() or not (folder / INDEX_FILE).is_file():
            raise FileNotFoundError(
                f"{folder} has no whole {INDEX_FILE} with its {INDEX_DESCRIPTION}. Build it with `hf-seqrec index`."
            )
        try:
            description = json.loads((folder / INDEX_DESCRIPTION).read_text(encoding="utf-8"))
            found, kind = str(description["fingerprint"]), str(description["kind"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / INDEX_DESCRIPTION} is damaged ({error!r}). Build the index again.") from error
        expected = fingerprint(model)
        if found != expected:
            raise ValueError(
                f"{folder / INDEX_FILE} was built from other item embeddings ({found}) than this model has "
                f"({expected}): it would recommend the wrong items. Build it again."
            )
        try:
            index = faiss.read_index(str(folder / INDEX_FILE))
        except RuntimeError as error:
            raise ValueError(f"{folder / INDEX_FILE} cannot be read ({error}). Build the index again.") from error
        if index.ntotal != model.config.n_items:
            raise ValueError(
                f"{folder / INDEX_FILE} has {index.ntotal} items, but the model has {model.config.n_items}. "
                "Build it again."
            )
        return cls(index, found, kind)

    def check_model(self, model: SeqRecPreTrainedModel) -> None:
        r"""
        Check that the index is this model's.

        Raises:
            ValueError: if it was built from other item embeddings.
        """
        expected = fingerprint(model)
        if self.fingerprint != expected:
            raise ValueError(
                f"`index` was built from other item embeddings ({self.fingerprint}) than `model` has ({expected}): it "
                "would recommend the wrong items. Build one of this model with `SearchIndex.build`."
            )

    def search(
        self,
        states: Tensor,
        top_k: int,
        excluded_rows: Tensor | None = None,
        effort: int = 64,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Return rows and scores, `(b, top_k)` each, of about the best items for each state, best first.

        Where fewer are found, what is left has row 0 and score `-inf`.

        Args:
            states (`torch.Tensor` of shape `(b, d)`): As `model.query_states` gives them.
            top_k (`int`): How many items.
            excluded_rows (`torch.LongTensor` of shape `(b, s)`, *optional*): Rows that must not be found, padded with
                0. So many more are searched for.
            effort (`int`, *optional*, defaults to 64): Candidates in the graph, or lists that are looked into: more
                find more, and take longer.
        """
        queries = states.float().numpy(force=True)
        if self.faiss_index.d == queries.shape[1] + 1:
            queries = np.pad(queries, ((0, 0), (0, 1)), constant_values=1.0)
        n_excluded = 0 if excluded_rows is None else int((excluded_rows != 0).sum(dim=1).max())
        # Never more than there are, and in the graph never more than it looks at.
        asked = min(top_k + n_excluded, self.faiss_index.ntotal)
        found_scores, places = self.faiss_index.search(
            np.ascontiguousarray(queries), asked, params=self._parameters(max(effort, asked), effort)
        )
        rows, scores = torch.from_numpy(places + 1), torch.from_numpy(found_scores)
        is_missing = rows == 0
        if excluded_rows is not None:
            is_missing |= (rows[:, :, None] == excluded_rows.to(rows.device)[:, None]).any(dim=2)
        scores = scores.masked_fill(is_missing, -torch.inf)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        rows = rows.masked_fill(is_missing, 0).gather(1, order)
        short = max(0, top_k - asked)
        rows = torch.nn.functional.pad(rows[:, :top_k], (0, short))
        scores = torch.nn.functional.pad(scores[:, :top_k], (0, short), value=-torch.inf)
        return rows.to(states.device), scores.to(states.device)

    def recommend(
        self,
        model: SeqRecPreTrainedModel,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        top_k: int = 10,
        exclude_seen: bool = True,
        effort: int = 64,
    ) -> tuple[Tensor, Tensor]:
        r"""
        `model.recommend` through the index: rows and scores, `(b, top_k)` each, best first.

        Scores are exact; which items there are is not. Arguments as in `model.recommend`, and `effort` as in
        [`search`].

        Raises:
            ValueError: if the model is not the one that was indexed.
        """
        if model.config.n_items != self.faiss_index.ntotal:
            raise ValueError(
                f"The index has {self.faiss_index.ntotal} items, but `model` has {model.config.n_items}. Build one of "
                "this model."
            )
        states, seen = history_states(model, input_ids, attention_mask)
        return self.search(states, top_k, seen if exclude_seen else None, effort)

    def _parameters(self, candidates: int, lists: int) -> Any:
        faiss = _faiss()
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=candidates)
        return faiss.SearchParametersIVF(nprobe=min(lists, self.faiss_index.nlist))


def history_states(
    model: SeqRecPreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return `model.query_states` of each history, `(b, d)`, and the rows `(b, l)` that are in it, padded with 0."""
    if attention_mask is None:
        attention_mask = (input_ids != 0).long()
    return model.query_states(input_ids, attention_mask), input_ids.masked_fill(attention_mask == 0, 0)


def recall(found: Tensor, exact: Tensor) -> float:
    """Return the share of the exact rows `(b, k)` that are among the found ones `(b, k)`."""
    return float((exact[:, :, None] == found[:, None]).any(dim=2).float().mean())


def fingerprint(model: SeqRecPreTrainedModel) -> str:
    """Return a short hash, in hexadecimal, of the vectors that score a model's items."""
    items, bias = model.output_items()
    digest = hashlib.blake2b(digest_size=8)
    for tensor in (items, bias):
        if tensor is not None:
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _item_vectors(model: SeqRecPreTrainedModel) -> npt.NDArray[np.float32]:
    """Vectors of rows 1..n_items, with the bias of a model that has one as the last coordinate."""
    items, bias = model.output_items()
    vectors = items.detach().float()
    if bias is not None:
        vectors = torch.cat([vectors, bias.detach().float()[:, None]], dim=1)
    return np.ascontiguousarray(vectors[1:].numpy(force=True))


def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        raise ImportError(f"Approximate search needs FAISS: {install_hint('ann')}.")
    import faiss

    return faiss
