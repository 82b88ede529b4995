"""Print results beside baselines, evaluations with their groups, and recommendations, as tables."""

from typing import Any

import torch

from ..data.catalog import Catalog
from ..data.histories import HistoryDataset
from ..data.leave_one_out import LeaveOneOut
from ..data.sequences import Sequences
from ..data.splits import Splits
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .protocol import EvaluationProtocol
from .results import Results

_SHOWN_METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10", "hr@20")


def print_results(
    sequences: Sequences,
    splits: Splits,
    metrics: dict[str, float],
    protocol: EvaluationProtocol,
    baselines: dict[str, dict[str, float]],
) -> None:
    r"""
    Print test metrics beside those of baselines and, where the data knows its law, the best that anyone could reach.

    Args:
        sequences ([`Sequences`]): The dataset.
        splits: What of it was held out.
        metrics (`dict[str, float]`): The model's, of which those with `test_` are shown.
        protocol ([`EvaluationProtocol`]): How targets were ranked.
        baselines (`dict[str, dict[str, float]]`): The metrics of each baseline, in the same way.
    """
    # Of the last items, which only leave-one-out asks for.
    reachable = sequences.statistics.get("reachable", {}) if isinstance(splits, LeaveOneOut) else {}
    print(f"\nProtocol: {splits.protocol}")
    print(", ".join(f"{what}: {count:,}" for what, count in splits.counts.items()))
    for suffix, title in protocol.rankings.items():
        rows = {
            **{name: _of_part(values, "test") for name, values in baselines.items()},
            "this model": _of_part(metrics, "test"),
            **({"best reachable": reachable} if reachable else {}),
        }
        print(f"\nTest, {len(splits.test):,} users, {title}")
        _print_table(rows, [f"{name}{suffix}" for name in _SHOWN_METRICS])


def print_evaluation(results: Results) -> None:
    """Print what [`evaluate_checkpoint`] measured: metrics, their intervals, and for whom."""
    print(f"\nProtocol: {results['protocol']}")
    print(", ".join(f"{what}: {count:,}" for what, count in results["split_counts"].items()))
    for prefix, part in (("eval", "Validation"), ("test", "Test")):
        rows = _rows_of_part(results, prefix)
        if not rows:
            continue
        names = [name for name in next(iter(rows.values())) if name.startswith(("hr@", "ndcg@", "mrr@"))]
        for suffix, title in results["rankings"].items():
            print(f"\n{part}, {title}")
            _print_table(rows, [name for name in names if _belongs(name, suffix, results["rankings"])])
        for what, groups in results.get("breakdowns", {}).get(prefix, {}).items():
            print(f"\n{part} by {what}, {next(iter(results['rankings'].values()))}")
            labelled = {f"{name} ({group['n_users']:,} users)": group for name, group in groups.items()}
            columns = [name for group in groups.values() for name in group if name != "n_users"]
            _print_table(labelled, list(dict.fromkeys(columns)))
        print(f"\n{part}, what is recommended (novelty in bits)")
        _print_lists(rows)
    if "comparison" in results:
        print(f"\n{comparison_sentence(results)}")


def comparison_sentence(results: Results) -> str:
    """Say how the model compares with the best baseline, and how sure that is."""
    found = results["comparison"]
    suffix = found["metric"].removeprefix("test_ndcg@10")
    low, high = found["interval"]
    return (
        f"Test NDCG@10, {results['rankings'][suffix]}: the model is {abs(found['difference']):.4f} "
        f"{'above' if found['difference'] >= 0 else 'below'} {found['baseline']}, the best baseline (95 % interval of "
        f"the difference {low:+.4f} to {high:+.4f}, p = {found['p_value']:.4g}; paired bootstrap over "
        f"{found['n_users']:,} users)."
    )


def _rows_of_part(results: Results, prefix: str) -> dict[str, dict[str, float]]:
    """Return the metrics of the model with their intervals, and of the baselines, where they were measured."""
    rows = {"this model": _of_part(results["metrics"], prefix)}
    intervals = _of_part(results.get("intervals", {}), prefix)
    rows["95 % from"] = {name: bounds[0] for name, bounds in intervals.items()}
    rows["95 % to"] = {name: bounds[1] for name, bounds in intervals.items()}
    rows |= {name: _of_part(metrics, prefix) for name, metrics in results.get("baselines", {}).items()}
    return {label: row for label, row in rows.items() if row}


def _print_lists(rows: dict[str, dict[str, float]]) -> None:
    """Print how much of the catalog each row recommends, and how novel that is."""
    names = [name for name in next(iter(rows.values())) if name.startswith(("coverage@", "novelty@"))]
    _print_table({label: row for label, row in rows.items() if not label.startswith("95 %")}, names)


def _of_part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}_"): value for name, value in values.items() if name.startswith(f"{prefix}_")}


def _belongs(name: str, suffix: str, rankings: dict[str, str]) -> bool:
    """Tell whether a metric is of the ranking with this suffix; without one, whether it has no other."""
    if suffix:
        return name.endswith(suffix)
    return not any(name.endswith(other) for other in rankings if other)


def print_recommendations(
    model: SeqRecPreTrainedModel, catalog: Catalog, test: HistoryDataset, user: int = 0, top_k: int = 10
) -> None:
    r"""
    Print what a test user did last, what the model recommends, and what came next.

    Args:
        model ([`SeqRecPreTrainedModel`]): A trained model.
        catalog ([`Catalog`]): What its rows stand for.
        test ([`HistoryDataset`]): A view with targets.
        user (`int`): Position of the user in the view.
        top_k (`int`): How many items to recommend, or as many as the user has not seen.
    """
    history = test.history(user)
    print(f"\nUser {test.sequences.user_ids[int(test.users[user])]}, {len(history)} events, the last ones:")
    for title in catalog.describe(history[-5:]):
        print(f"    {title}")
    # A small catalog may leave fewer unread items than asked for.
    top_k = min(top_k, catalog.n_items - len(set(history.tolist())))
    if top_k == 0:
        print("Nothing is recommended: the history has every item of the catalog.")
        return
    rows, scores = model.recommend(torch.from_numpy(history.astype("int64"))[None].to(model.device), top_k=top_k)
    target = None if test.targets is None else int(test.targets[user])
    print_ranking(catalog, rows[0].tolist(), scores[0].tolist(), target)


def print_ranking(catalog: Catalog, rows: list[int], scores: list[float], target: int | None = None) -> None:
    """Print recommended items by rank, title, raw id and score, and mark the one that really came next."""
    print("Recommended:")
    for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
        mark = "   <- came next" if row == target else ""
        print(f"{rank:>4}. {catalog.describe([row])[0]:<60.60} id {catalog.decode([row])[0]:<12} {score:8.3f}{mark}")
    if target is not None and target not in rows:
        print(f"      Came next: {catalog.describe([target])[0]}")


def _print_table(rows: dict[str, dict[str, float]], names: list[str]) -> None:
    """Print one line for each row, blank where it has no such metric."""
    width = max(16, *(len(label) + 2 for label in rows))
    titles = [name.split("_")[0] for name in names]
    widths = [max(10, len(title) + 2) for title in titles]
    print(f"{'':{width}}" + "".join(f"{title:>{column}}" for title, column in zip(titles, widths, strict=True)))
    for label, row in rows.items():
        cells = [f"{row[name]:.4f}" if name in row else "" for name in names]
        print(f"{label:{width}}" + "".join(f"{cell:>{column}}" for cell, column in zip(cells, widths, strict=True)))
