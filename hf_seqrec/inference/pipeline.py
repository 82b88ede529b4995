"""`pipeline("sequential-recommendation")`: raw item ids in; raw ids, scores, titles and metadata out."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from transformers import Pipeline
from transformers.utils import logging

from ..models import MODEL_TYPES
from .raw_ids import plain_list, raw_ids

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
    history, its most popular items are recommended; a warning says so, and so does `source`.

    Args:
        model ([`SeqRecPreTrainedModel`]): The model.
        catalog ([`Catalog`], *optional*): What its rows stand for. By default the one that is saved with the model.
        top_k (`int`, *optional*, defaults to 10): How many items to recommend; fewer where fewer are left.
        exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the items of the history.
        candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.
        exclude (`list[str | int]`, *optional*): Never recommend these raw ids.
        batch_size (`int`, *optional*, defaults to 64): Histories at once.
        device (`int`, `str` or `torch.device`, *optional*): Where to run.

    The last six can be given when the pipeline is made, and but for the device at each call.

    Raises:
        ValueError: if the model is none of this package, has no catalog, or has one of another size.

    Example:

    ```python
    >>> recommend = pipeline("sequential-recommendation", model="runs/ml-1m")
    >>> recommend(["1193", "661", "914"], top_k=1)
    [{'item_id': '594', 'score': 7.2, 'title': 'Snow White (1937)', 'source': 'model', 'recommended_by': 'model'}]
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
                One history: a list of raw ids, oldest first, or an array of numpy, pandas or pyarrow, or
                `{"history": [...], "candidates": [...], "exclude": [...]}`, of which the last two may be left out. Or
                several histories: a list or an array of them, or anything else that yields them, such as a generator,
                a `KeyDataset` or a `datasets.Dataset` with these columns, which is then read as it is needed.
            batch_size, top_k, exclude_seen, candidates, exclude: See [`SequentialRecommendationPipeline`].
            num_workers (`int`, *optional*): Not used; there is nothing to load.

        Returns:
            For each history a list, best first, of dictionaries: `item_id`, `score` (of popular items their
            interactions), `title` (the raw id where there is none), the other columns of the catalog, and `source`,
            which is `"model"` or `"popularity"`, and which `recommended_by` repeats. For one history its list; for a
            list or an array of them a list of lists; for anything else an iterator of lists.

        Raises:
            TypeError: if `inputs` are no histories, or `top_k` is no integer.
            ValueError: if `top_k` is not in 1..n_items, the catalog has none of the candidates, or scores are NaN.
        """
        if args:
            raise TypeError(f"`inputs` must be one argument, got {1 + len(args)}. Put histories into a list.")
        _, forward_params, _ = self._sanitize_parameters(**kwargs)
        forward_params = self._forward_params | forward_params
        batch_size = batch_size or self._batch_size or _BATCH_SIZE
        if isinstance(inputs, Mapping):
            return next(self._in_batches([inputs], 1, forward_params))
        if isinstance(inputs, list | tuple) or hasattr(inputs, "to_pylist") or hasattr(inputs, "tolist"):
            values = plain_list(inputs)
            if values is None or _is_history(values):
                return next(self._in_batches([inputs], 1, forward_params))
            return list(self._in_batches(values, batch_size, forward_params))
        return self._in_batches(_in_order(inputs), batch_size, forward_params)

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
        unknown = sorted(kwargs.keys() - {"top_k", "exclude_seen", "candidates", "exclude"})
        if unknown:
            raise TypeError(
                f"`{'`, `'.join(unknown)}` must be left out: this pipeline knows `top_k`, `exclude_seen`, "
                "`candidates`, `exclude` and `batch_size`."
            )
        return {}, kwargs, {}

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> dict[str, Any]:
        """Turn a history, or a dictionary with one, into a dictionary with lists of raw ids."""
        if not isinstance(input_, Mapping):
            input_ = {"history": input_}
        if "history" not in input_:
            raise TypeError(f"`inputs` must have a `history`, got a dictionary with {', '.join(input_) or 'nothing'}.")
        lists: dict[str, Any] = {"history": raw_ids(input_["history"], "history")}
        for name in ("candidates", "exclude"):
            lists[name] = None if input_.get(name) is None else raw_ids(input_[name], name)
        return lists

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        """Recommend to a batch; users with the same candidates and excluded items together."""
        shared = [
            None if values is None else raw_ids(values, name)
            for name in ("candidates", "exclude")
            for values in (forward_parameters.pop(name, None),)
        ]
        groups: dict[tuple[tuple[str | int, ...] | None, ...], list[int]] = {}
        examples = input_tensors["examples"]
        for place, example in enumerate(examples):
            own = (example["candidates"], example["exclude"])
            used = (of_all if of_one is None else of_one for of_one, of_all in zip(own, shared, strict=True))
            groups.setdefault(tuple(None if ids is None else tuple(ids) for ids in used), []).append(place)
        answers: dict[int, Answer] = {}
        for (candidates, exclude), places in groups.items():
            histories = [examples[place]["history"] for place in places]
            found = self.recommender.recommend_many(
                histories, candidates=candidates, exclude=exclude, **forward_parameters
            )
            if found[0].unknown_candidates:
                logger.warning(
                    f"{found[0].unknown_candidates} of {len(candidates or ())} candidates are not in this model's "
                    "catalog and were left out."
                )
            answers |= dict(zip(places, found, strict=True))
        return {"answers": [answers[place] for place in range(len(examples))]}

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> list[dict[str, Any]]:
        """Describe what is recommended to one user."""
        answer = model_outputs["answer"]
        rows = self.catalog.rows_of([item.item_id for item in answer.recommendations])
        names = [name for name in self.catalog.table.column_names if name not in ("row", "count")]
        known = self.catalog.table.select(names).take(rows - 1).to_pylist()
        return [
            {"item_id": item.item_id, "score": item.score, "title": item.title}
            | {name: value for name, value in metadata.items() if name not in ("item_id", "title")}
            | {"source": answer.source, "recommended_by": answer.source}
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


def _is_history(values: list[Any]) -> bool:
    """Tell one history, a list of ids, from a list of them; an empty list is a history without items."""
    return not any(isinstance(value, Mapping) or _is_list(value) for value in values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _in_order(inputs: Any) -> Iterable[Any]:
    """Yield what is in a generator, or in a dataset that only knows its length and the item at a place."""
    if isinstance(inputs, str | bytes):
        raise TypeError(f"`inputs` must be a list of raw item ids, got {inputs!r}. Put it into a list.")
    if isinstance(inputs, Iterable):
        return inputs
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[place] for place in range(len(inputs)))
    raise TypeError(f"`inputs` must be a list of raw item ids, got {inputs!r}. Put it into a list.")


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
