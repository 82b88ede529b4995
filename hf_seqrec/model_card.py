"""The card of a checkpoint, rendered from the results that a run measured."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

CARD_FILE = "README.md"
_METRIC_NAMES = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR"}
_CUT_OFFS = (1, 5, 10, 20)


def write_model_card(folder: str | Path, config: PreTrainedConfig, results: dict[str, Any] | None) -> Path:
    r"""
    Write `README.md` into a checkpoint folder and return its path.

    Args:
        folder (`str`): The checkpoint folder.
        config (`PreTrainedConfig`): The model's configuration.
        results (`dict`, *optional*): What `results.json` holds. Without it the card says that nothing was measured.
    """
    path = Path(folder) / CARD_FILE
    render_model_card(config, results).save(path)
    return path


def render_model_card(config: PreTrainedConfig, results: dict[str, Any] | None) -> ModelCard:
    """Render the card: metadata that the Hub reads, how to load the model, and how every number was measured."""
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="other",
        tags=["sequential-recommendation", "recommender-system", "hf-seqrec", config.model_type],
        model_name=None if results is None else _title(config, results),
        eval_results=None if results is None else _eval_results(results),
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_title(config, results)}",
        f"A `{config.model_type}` sequential recommender over {config.n_items:,} items, made with hf-seqrec. Given "
        "the ordered history of what a user played, watched or bought, it scores every item for what comes next.",
        _USE,
        "## Results\n\nNothing was measured with this checkpoint." if results is None else _results(results),
        _LIMITS,
    ]
    return ModelCard("\n\n".join(sections) + "\n")


_USE = """## Use

```python
import hf_seqrec
from hf_seqrec.checkpoint import load_checkpoint

model, catalog = load_checkpoint("this/repository")
rows, scores = model.recommend(torch.tensor([catalog.encode(["raw id", "another raw id"])]), top_k=10)
print(catalog.describe(rows[0]))
```

Without the package, `AutoModel.from_pretrained("this/repository", trust_remote_code=True)` loads the same model;
`catalog.parquet` says which raw item id stands at which row."""

_LIMITS = """## Limits

Items that were not in the training log cannot be recommended, and items unknown to the catalog cannot be part of a
history. Like any model of logged behaviour it favours what was popular when the log was written."""


def _title(config: PreTrainedConfig, results: dict[str, Any] | None) -> str:
    return config.model_type if results is None else f"{config.model_type} on {_dataset_name(results)}"


def _dataset_name(results: dict[str, Any]) -> str:
    return Path(str(results["dataset"])).stem


def _eval_results(results: dict[str, Any]) -> list[EvalResult]:
    """List the test metrics for the Hub's leaderboards, in both history modes."""
    return [
        EvalResult(
            task_type="sequential-recommendation",
            dataset_type=_dataset_name(results),
            dataset_name=_dataset_name(results),
            dataset_split="test",
            metric_type=f"{name}@{k}{suffix}",
            metric_name=f"{shown}@{k}, history {'not excluded' if suffix else 'excluded'}",
            metric_value=round(results["metrics"][f"test_{name}@{k}{suffix}"], 4),
        )
        for suffix in ("", "_with_seen")
        for name, shown in _METRIC_NAMES.items()
        for k in _CUT_OFFS
    ]


def _results(results: dict[str, Any]) -> str:
    metrics, statistics = results["metrics"], results["statistics"]
    header = ["split", "history", *(f"{shown}@{k}" for shown in _METRIC_NAMES.values() for k in (5, 10, 20))]
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for prefix, split in (("eval", "validation"), ("test", "test")):
        for suffix, mode in (("", "excluded"), ("_with_seen", "not excluded")):
            numbers = (metrics[f"{prefix}_{name}@{k}{suffix}"] for name in _METRIC_NAMES for k in (5, 10, 20))
            lines.append(" | ".join([split, mode, *(f"{number:.4f}" for number in numbers)]))
    table = "\n".join(f"| {line} |" for line in lines)
    counts = ", ".join(f"{statistics[f'n_{name}']:,} {name}" for name in ("users", "items", "interactions"))
    versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    hardware = results["hardware"]
    takes_part = ", ".join(f"{what}: {count:,}" for what, count in results.get("split_counts", {}).items())
    objective = ", ".join(f"{name} {value}" for name, value in results.get("objective", {}).items())
    objective = f"; {objective}" if objective else ""
    protocol = f"Protocol: {results['protocol']}." + (f" Counts: {takes_part}." if takes_part else "")
    return f"""## Results

{_dataset_name(results)}: {counts}.

{protocol}

{table}

Trained for {results["epochs"]:.0f} epochs in {results["train_seconds"]:,.0f} s on {hardware["device"]}
({hardware["threads"]} threads, {hardware["processes"]} process(es)), seed {results["seed"]}, {results["parameters"]:,}
parameters{objective};
the checkpoint of step {results["best_step"]} was the best on validation. Versions: {versions}.

```
{results["command"]}
```"""
