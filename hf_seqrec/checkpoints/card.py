"""The card of a checkpoint, rendered from the results that a run or `hf-seqrec evaluate` measured."""

import dataclasses
import inspect
import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from ..evaluation.results import Results
from ..evaluation.tables import comparison_sentence
from ..models import config_class, model_class

CARD_FILE = "README.md"
CURVES_FILE = "curves.png"
# Where the name of the repository goes when it is known.
_REPOSITORY = "this/repository"
_METRIC_NAMES = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR"}
_CUT_OFFS = (1, 5, 10, 20)


def write_model_card(
    folder: str | Path, config: PreTrainedConfig, results: Results | None, repo_id: str | None = None
) -> Path:
    r"""
    Write `README.md` into a checkpoint folder and return its path.

    Args:
        folder (`str`): The checkpoint folder. Its `curves.png` is shown, where it has one.
        config (`PreTrainedConfig`): The model's configuration.
        results (`dict`, *optional*): What `results.json` holds. Without it the card says that nothing was measured.
        repo_id (`str`, *optional*): Where on the Hub the model will be.
    """
    path = Path(folder) / CARD_FILE
    card = str(card_of_folder(folder, config, results))
    path.write_text(card if repo_id is None else of_repository(card, repo_id), encoding="utf-8")
    return path


def card_of_folder(folder: str | Path, config: PreTrainedConfig, results: Results | None) -> ModelCard:
    """Render the card of a checkpoint folder; the arguments are those of [`write_model_card`]."""
    picture = CURVES_FILE if Path(folder, CURVES_FILE).is_file() else None
    return render_model_card(config.model_type, config.n_items, results, picture, getattr(config, "note", None))


def of_repository(card: str, repo_id: str, licence: str | None = None) -> str:
    """Return a card with the name of its repository in its examples, and a licence in its metadata if it has none."""
    card = card.replace(_REPOSITORY, repo_id)
    if licence is not None:
        metadata = ModelCard(card)
        if metadata.data.get("license") is None:
            metadata.data["license"] = licence
            card = str(metadata).replace(_NO_LICENCE, f"Licence of the weights: {licence}.")
    return card


def render_model_card(
    model_type: str, n_items: int, results: Results | None, picture: str | None = None, note: str | None = None
) -> ModelCard:
    r"""
    Render the card: metadata that the Hub reads, how to load the model, and how every number was measured.

    Args:
        model_type (`str`): Which system it is.
        n_items (`int`): Items of its catalog.
        results (`dict`, *optional*): What `results.json` holds. Without it the card says that nothing was measured.
        picture (`str`, *optional*): File beside the card with the curves of loss and metrics.
        note (`str`, *optional*): Which variant of the system it is, the configuration's `note`.
    """
    title = model_type if results is None else f"{model_type} on {_dataset_name(results)}"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="other",
        tags=["sequential-recommendation", "recommender-system", "hf-seqrec", model_type],
        model_name=None if results is None else title,
        eval_results=None if results is None else _eval_results(results),
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {title}",
        f"A `{model_type}` sequential recommender over {n_items:,} items, made with hf-seqrec. Given "
        "the ordered history of what a user played, watched or bought, it scores every item for what comes next.",
        *([] if note is None else [note]),
        _USE,
        "## Results\n\nNothing was measured with this checkpoint." if results is None else _results(results),
        *([] if picture is None else [f"![Loss and validation metrics by epoch]({picture})"]),
        _LIMITS,
        _licences(results),
        _citations(model_type, results),
    ]
    return ModelCard("\n\n".join(sections) + "\n")


_USE = f"""## Use

```python
from hf_seqrec import Recommender

recommender = Recommender.from_pretrained("{_REPOSITORY}")
for item in recommender.recommend(["raw id", "another raw id"], top_k=10):
    print(item.item_id, item.title, item.score)
```

From a shell: `hf-seqrec recommend {_REPOSITORY} --history "raw id" "another raw id"`. Without the package,
`AutoModel.from_pretrained("{_REPOSITORY}", trust_remote_code=True)` loads the same model; `catalog.parquet` says
which raw item id stands at which row."""

_LIMITS = """## Intended use and limits

For ranking the items of its catalog for people with a history like those it was trained on, and for comparing
recommenders under the same protocol. Not for decisions about people, nor as a measure of what is good: it says what
tends to come next in the log.

- **No cold items.** Items that were not in the training log cannot be recommended, and items unknown to the catalog
  cannot be part of a history.
- **Popularity bias.** Like any model of logged behaviour it favours what was popular when the log was written, and
  recommending from it makes that more popular still. Look at coverage and at the metrics of rare items before use.
- **It ages.** What came into fashion after the log was written is not in the model.
- The numbers are of held-out events of the same log, not of people who were shown the recommendations."""

_NO_LICENCE = "No licence was chosen for the weights."


def _licences(results: Results | None) -> str:
    """Say on what terms the weights, the code and the data are."""
    source = {} if results is None else results["statistics"].get("about", {})
    lines = [f"{_NO_LICENCE} The code in this repository is part of hf-seqrec, Apache-2.0."]
    if results is not None:
        terms = source.get("licence") or source.get("licence_id")
        lines.append(
            f"Licence of the data: {terms}"
            if terms
            else f"The licence of the data ({_dataset_name(results)}) was not recorded: ask its source before you "
            "use the model for more than research."
        )
    if source.get("homepage"):
        lines.append(f"Source of the data: {source['homepage']}")
    return "## Licence\n\n" + "\n\n".join(lines)


def _citations(model_type: str, results: Results | None) -> str:
    """Name who proposed the model, as its class does, and what the data asks to be cited with."""
    first_line = (inspect.getdoc(model_class(model_type)) or "").splitlines()[0]
    found = re.match(r"\S+ \([^)]*https?://[^)]*\)", first_line)
    assert found is not None  # tests look at every model
    parts = [f"## Citation\n\nThe model: {found.group()}."]
    citation = None if results is None else results["statistics"].get("about", {}).get("citation")
    if citation:
        parts.append(f"The data:\n\n```bibtex\n{citation.strip()}\n```")
    return "\n\n".join(parts)


def _dataset_name(results: Results) -> str:
    return Path(str(results["dataset"])).stem


def _eval_results(results: Results) -> list[EvalResult]:
    """List the test metrics for the Hub's leaderboards, in every ranking of the protocol."""
    return [
        EvalResult(
            task_type="sequential-recommendation",
            dataset_type=_dataset_name(results),
            dataset_name=_dataset_name(results),
            dataset_split="test",
            # Stated once, where the Hub keeps what a result was measured on.
            dataset_args={"protocol": results["protocol"]},
            metric_type=f"{name}@{k}{suffix}",
            metric_name=f"{shown}@{k}, {ranking}",
            metric_value=round(results["metrics"][f"test_{name}@{k}{suffix}"], 4),
        )
        for suffix, ranking in _rankings(results).items()
        for name, shown in _METRIC_NAMES.items()
        for k in _CUT_OFFS
        if f"test_{name}@{k}{suffix}" in results["metrics"]
    ]


def _rankings(results: Results) -> dict[str, str]:
    """Return what each suffix of a metric's name says; results of earlier versions have the full ranking alone."""
    full = {"": "full ranking, history excluded", "_with_seen": "full ranking, history not excluded"}
    return results.get("rankings", full)


def _results(results: Results) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    if results.get("commit"):
        versions += f"; commit {results['commit']}"
    takes_part = ", ".join(f"{what}: {count:,}" for what, count in results.get("split_counts", {}).items())
    protocol = f"Protocol: {results['protocol']}." + (f" Counts: {takes_part}." if takes_part else "")
    return f"""## Results

{_data(results)}

{protocol}

{_table(results)}

{_details(results)}## {"Training" if "epochs" in results else "Evaluation"} and hardware

{_how_made(results)} Versions: {versions}.

```
{results["command"]}
```"""


def _table(results: Results) -> str:
    """Show every ranking of validation and test, and the baselines under the model, where they were measured."""
    baselines = results.get("baselines", {})
    header = ["split", "ranking", *(f"{shown}@{k}" for shown in _METRIC_NAMES.values() for k in (5, 10, 20))]
    lines = [header, ["---"] * len(header)]
    rows = {str(results["model_type"]): results["metrics"]} | baselines
    names = ["recommender", "---"]
    for prefix, split in (("eval", "validation"), ("test", "test")):
        for suffix, ranking in _rankings(results).items():
            for recommender, metrics in rows.items():
                numbers = [metrics.get(f"{prefix}_{name}@{k}{suffix}") for name in _METRIC_NAMES for k in (5, 10, 20)]
                if any(number is not None for number in numbers):
                    cells = ("" if number is None else f"{number:.4f}" for number in numbers)
                    lines.append([split, ranking, *cells])
                    names.append(recommender)
    if baselines:
        lines = [[name, *line] for name, line in zip(names, lines, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(results: Results) -> str:
    """Say what the numbers were measured on: counts, histories, what was filtered."""
    statistics = results["statistics"]
    counts = ", ".join(f"{statistics[f'n_{name}']:,} {name}" for name in ("users", "items", "interactions"))
    text = f"Data: {_dataset_name(results)}, {counts}"
    if length := statistics.get("history_length"):
        text += (
            f"; {length['min']:,} to {length['max']:,} events a user, median {length['median']:g}, mean "
            f"{length['mean']:g}; {statistics['density']:.4%} of all pairs"
        )
    steps = statistics.get("steps", [])
    if len(steps) > 1:
        text += "; filtered: " + ", ".join(f"{step['name']} ({step['n_interactions']:,} left)" for step in steps[1:])
    return f"{text}."


def _how_made(results: Results) -> str:
    """Say how the checkpoint was trained, or, in the results of an evaluation alone, how long that took."""
    hardware = results["hardware"]
    where = f"{hardware['device']} ({hardware['threads']} threads, {hardware['processes']} process(es))"
    if peak := hardware.get("peak_memory_bytes"):
        where += f", at most {peak / 2**30:.1f} GiB of memory"
        if reserved := hardware.get("peak_reserved_bytes"):
            where += f" allocated and {reserved / 2**30:.1f} GiB reserved"
    if "epochs" not in results:
        return (
            f"Evaluated in {results['evaluation_seconds']:,.0f} s on {where}, histories of {results['max_length']} "
            f"items, {results['parameters']:,} parameters."
        )
    objective = [f"{name} {value}" for name, value in results.get("objective", {}).items()]
    if "optimizer" in results:
        objective.append(f"{results['optimizer']} at {results['learning_rate']:g}, {results['lr_scheduler']}")
        objective.append(f"{results['batch']['histories_per_step']} histories a step")
    resumed_from = results.get("resumed_from")
    seconds = f"{results['train_seconds']:,.0f} s" + (f" since it went on from {resumed_from}" if resumed_from else "")
    return (
        f"Trained for {results['epochs']:.0f} epochs in {seconds} on {where}, seed "
        f"{results['seed']}, {results['parameters']:,} parameters{'; ' if objective else ''}{', '.join(objective)}"
        f"{_changes(results)};\n"
        f"the checkpoint of step {results['best_step']} was the best on validation."
    )


def _changes(results: Results) -> str:
    """Say what a run did otherwise from a checkpoint on."""
    text = ""
    for change in results.get("changed_on_resume", []):
        values = {name: pair for name, pair in change.items() if name != "resumed_from"}
        shown = ", ".join(f"{name} {after} instead of {before}" for name, (before, after) in values.items())
        text += f"; from {change['resumed_from']} on {shown}"
    return text


def _details(results: Results) -> str:
    """Say, where it was measured, how sure the test metrics are, for whom they are good, and what is recommended."""
    metrics, paragraphs = results["metrics"], []
    intervals = [
        f"{shown}@10{suffix} {low:.4f} to {high:.4f}"
        for suffix in _rankings(results)
        for name, shown in _METRIC_NAMES.items()
        for low, high in [results.get("intervals", {}).get(f"test_{name}@10{suffix}", (None, None))]
        if low is not None
    ]
    if intervals:
        paragraphs.append(f"95 % bootstrap intervals over the users of the test: {', '.join(intervals)}.")
    if "comparison" in results:
        paragraphs.append(comparison_sentence(results))
    lists = [
        f"{name} {metrics[f'test_{name}@10']:.4f}" for name in ("coverage", "novelty") if f"test_{name}@10" in metrics
    ]
    if lists:
        paragraphs.append(f"Of the first 10 recommendations: {', '.join(lists)} (novelty in bits).")
    for what, groups in results.get("breakdowns", {}).get("test", {}).items():
        shown = [name for name in ("hr@10", "ndcg@10", "mrr@10") if all(name in group for group in groups.values())]
        lines = [[what, "users", *shown], ["---"] * (2 + len(shown))]
        for name, group in groups.items():
            lines.append([name, f"{group['n_users']:,}", *(f"{group[metric]:.4f}" for metric in shown)])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        paragraphs.append(f"Test by {what}, {next(iter(_rankings(results).values()))}:\n\n{table}")
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


def results_note(results: Results) -> str | None:
    """Say which variant of the system was trained, from the fields of its configuration among the arguments."""
    assert results["model_type"] is not None  # the results are a model's
    config_cls = config_class(results["model_type"])
    told = results.get("arguments", {})
    names = {field.name for field in dataclasses.fields(config_cls) if field.metadata.get("in_recipes", True)}
    return config_cls(**{name: told[name] for name in names & told.keys()}).note
