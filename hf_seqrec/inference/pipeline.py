"""`pipeline("sequential-recommendation")`: raw item ids in; raw ids, scores, titles and metadata out."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import Pipeline
from transformers.utils import logging

from ..models import MODEL_TYPES

if TYPE_CHECKING:
    from ..data.catalog import Catalog
    from .recommendation import Answer

logger = logging.get_logger(__name__)

TASK = "sequential-recommendation"
_BATCH_SIZE = 64


class SequentialRecommendationPipeline(Pipeline):
    r"""
    Recommends what comes next after histories of raw item ids.

    Items that the catalog does not have are left out, with a warning that counts them. Where nothing is left of a
    history, its most popular items are recommended; a warning says so, and so does `recommended_by`.

    Args:
        model ([`SeqRecPreTrainedModel`]): The model.
        catalog ([`Catalog`], *optional*): What its rows stand for. By default the one that is saved with the model.
        top_k (`int`, *optional*, defaults to 10): How many items to recommend; fewer where fewer are left.
        exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the items of the history.
        candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.
        batch_size (`int`, *optional*, defaults to 64): Histories at once.
        device (`int`, `str` or `torch.device`, *optional*): Where to run.

    The last five can be given when the pipeline is made, and but for the device at each call.

    Raises:
        ValueError: if the model is none of this package, has no catalog, or has one of another size.

    Example:

    ```python
    >>> recommend = pipeline("sequential-recommendation", model="runs/ml-1m")
    >>> recommend(["1193", "661", "914"], top_k=1)
    [{'item_id': '594', 'score': 7.2, 'title': 'Snow White (1937)', 'recommended_by': 'model'}]
    ```
    """

    # There is nothing to load beside the model but the catalog.
    _load_tokenizer: Any = False
    _load_processor: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    def __init__(self, model: Any, catalog: "Catalog | None" = None, **kwargs: Any) -> None:
        # Not above: this file is imported by transformers' registry, perhaps on behalf of one of these.
        from .recommender import Recommender

        if getattr(model.config, "model_type", None) not in MODEL_TYPES:
            raise ValueError(
                f"`model` must be one of {', '.join(MODEL_TYPES)} for {TASK!r}, got a "
                f"{getattr(model.config, 'model_type', None)!r} model ({type(model).__name__})."
            )
        catalog = _catalog_of(model) if catalog is None else catalog
        super().__init__(model=model, **kwargs)
        self.recommender = Recommender(model, catalog)

    @property
    def catalog(self) -> "Catalog":
        """What the rows of the model stand for."""
        return self.recommender.catalog

    def __call__(
        self, inputs: Any, *args: Any, num_workers: int | None = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        r"""
        Recommend to one user or to many.

        Args:
            inputs:
                One history, as a list of raw ids, oldest first, or as `{"history": [...], "candidates": [...]}`, where
                `candidates` may be left out; or a list of histories; or anything else that yields them, such as a
                generator or a `datasets.Dataset` with these columns, which is then read as it is needed.
            batch_size, top_k, exclude_seen, candidates: See [`SequentialRecommendationPipeline`].
            num_workers (`int`, *optional*): Not used; there is nothing to load.

        Returns:
            For each history a list, best first, of dictionaries: `item_id`, `score` (of popular items their
            interactions), `title` (the raw id where there is none), the other columns of the catalog, and
            `recommended_by`, which is `"model"` or `"popularity"`. For one history its list; for a list of them a list
            of lists; for anything else an iterator of lists.

        Raises:
            TypeError: if `inputs` are no histories.
            ValueError: if `top_k` is not in 1..n_items, or the catalog has none of the candidates.
        """
        if args:
            raise TypeError(f"`inputs` must be one argument, got {1 + len(args)}. Put histories into a list.")
        _, forward_params, _ = self._sanitize_parameters(**kwargs)
        forward_params = self._forward_params | forward_params
        batch_size = batch_size or self._batch_size or _BATCH_SIZE
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Iterable):
            raise TypeError(f"`inputs` must be a list of raw item ids, got {inputs!r}. Put it into a list.")
        if isinstance(inputs, Mapping) or _is_history(inputs):
            return next(self._in_batches([inputs], 1, forward_params))
        answers = self._in_batches(inputs, batch_size, forward_params)
        return list(answers) if isinstance(inputs, list | tuple) else answers

    def _in_batches(
        self, inputs: Iterable[Any], batch_size: int, forward_params: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        remaining = iter(inputs)
        while examples := [self.preprocess(example) for example in islice(remaining, batch_size)]:
            with self.device_placement():
                answers = self._forward({"examples": examples}, **forward_params)["answers"]
            _warn(answers, examples)
            for answer in answers:
                yield self.postprocess({"answer": answer})

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(kwargs.keys() - {"top_k", "exclude_seen", "candidates"})
        if unknown:
            raise TypeError(
                f"`{'`, `'.join(unknown)}` must be left out: this pipeline knows `top_k`, `exclude_seen`, "
                "`candidates` and `batch_size`."
            )
        return {}, kwargs, {}

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> dict[str, Any]:
        """Turn a history, or a dictionary with one, into a dictionary with lists of raw ids."""
        if not isinstance(input_, Mapping):
            input_ = {"history": input_}
        if "history" not in input_:
            raise TypeError(f"`inputs` must have a `history`, got a dictionary with {', '.join(input_) or 'nothing'}.")
        return {name: _ids(input_.get(name), name) for name in ("history", "candidates")}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        """Recommend to a batch; users with the same candidates together."""
        shared = _ids(forward_parameters.pop("candidates", None), "candidates")
        groups: dict[tuple[str | int, ...] | None, list[int]] = {}
        examples = input_tensors["examples"]
        for place, example in enumerate(examples):
            own = shared if example["candidates"] is None else example["candidates"]
            groups.setdefault(None if own is None else tuple(own), []).append(place)
        answers: dict[int, Answer] = {}
        for allowed, places in groups.items():
            if allowed is not None:
                _, n_unknown = self.catalog.encode_known(allowed)
                if n_unknown:
                    logger.warning(
                        f"{n_unknown} of {len(allowed)} candidates are not in this model's catalog and were left out."
                    )
            histories = [examples[place]["history"] for place in places]
            found = self.recommender.recommend_many(histories, candidates=allowed, **forward_parameters)
            answers |= dict(zip(places, found, strict=True))
        return {"answers": [answers[place] for place in range(len(examples))]}

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> list[dict[str, Any]]:
        """Describe what is recommended to one user."""
        answer = model_outputs["answer"]
        source = "popularity" if answer.is_popularity else "model"
        rows = self.catalog.rows_of([item.item_id for item in answer.recommendations])
        names = [name for name in self.catalog.table.column_names if name not in ("row", "count")]
        known = self.catalog.table.select(names).take(rows - 1).to_pylist()
        return [
            {"item_id": item.item_id, "score": item.score, "title": item.title}
            | {name: value for name, value in metadata.items() if name not in ("item_id", "title")}
            | {"recommended_by": source}
            for item, metadata in zip(answer.recommendations, known, strict=True)
        ]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """
        Save the model and its catalog; `pipeline(model=folder)` opens the folder again.

        The pipeline's own code is not saved, as transformers would do: a checkpoint that names a pipeline of its own
        asks for `trust_remote_code` even where this package is installed.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.catalog.save(save_directory)


def _is_history(inputs: Iterable[Any]) -> bool:
    """Tell one history, a list of ids, from a batch of them; an empty list is a history without items."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.dtype != object
    return isinstance(inputs, list | tuple) and all(isinstance(item, str | int | np.integer) for item in inputs)


def _ids(values: Any, name: str) -> list[str | int] | None:
    """Check raw ids, and return them as a list."""
    if values is None and name == "candidates":
        return None
    ids = None
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
        ids = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if ids is None or not all(isinstance(item, str | int | np.integer) for item in ids):
        raise TypeError(f"`{name}` must be a list of raw item ids (texts or integers), got {values!r}.")
    return ids


def _warn(answers: "list[Answer]", examples: list[dict[str, Any]]) -> None:
    """Say what was left out of histories, and who is recommended what is popular."""
    n_unknown = sum(answer.unknown_items for answer in answers)
    if n_unknown:
        n_items = sum(len(example["history"]) for example in examples)
        n_histories = sum(answer.unknown_items > 0 for answer in answers)
        logger.warning(
            f"{n_unknown} of {n_items} items are not in this model's catalog and were left out, of {n_histories} of "
            f"{len(answers)} histories."
        )
    n_popular = sum(answer.is_popularity for answer in answers)
    if n_popular:
        logger.warning(
            f"{n_popular} of {len(answers)} histories have no item of this model's catalog: these users are "
            "recommended what is most popular."
        )


def _catalog_of(model: Any) -> "Catalog":
    """Load the catalog that was saved with a model."""
    from ..data.catalog import Catalog

    if not model.name_or_path:
        raise ValueError("`catalog` must be given with a model that does not come from a checkpoint.")
    try:
        return Catalog.from_pretrained(model.name_or_path, revision=getattr(model, "loaded_revision", None))
    except FileNotFoundError as error:
        raise ValueError(
            f"`model` must come with a catalog, which says what its rows stand for: {error} Push one, or pass "
            "`catalog`."
        ) from error
