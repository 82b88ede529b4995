"""A picture of a run: loss and ranking metrics against the epoch."""

import os
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..checkpoints.card import CURVES_FILE
from ..installing import install_hint

logger = logging.get_logger(__name__)


class CurvesCallback(TrainerCallback):
    """Draws `curves.png` into the output folder after each evaluation, where matplotlib is installed."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw again with the newest point."""
        if state.is_world_process_zero:
            draw_curves(state.log_history, os.path.join(str(args.output_dir), CURVES_FILE))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say once when there will be no picture."""
        if not _has_matplotlib():
            logger.warning("No curves will be drawn: matplotlib is not installed. `%s`", install_hint("plot"))


def draw_curves(log_history: list[dict[str, float]], path: str) -> None:
    r"""
    Draw training and validation loss (left) and NDCG@10 and HR@10 in both history modes (right) against the epoch.

    Args:
        log_history (`list[dict[str, float]]`): `trainer.state.log_history`.
        path (`str`): Where to write the picture; nothing is written without matplotlib or before the first evaluation.
    """
    if not _has_matplotlib() or not any("eval_loss" in entry for entry in log_history):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("eval_loss", "validation, last item")):
        losses.plot(*_series(log_history, name), marker=".", label=label)
    for name, label in (("ndcg@10", "NDCG@10"), ("hr@10", "HR@10")):
        (line,) = metrics.plot(*_series(log_history, f"eval_{name}"), marker=".", label=label)
        epochs, values = _series(log_history, f"eval_{name}_with_seen")
        metrics.plot(epochs, values, linestyle=":", color=line.get_color(), label=f"{label}, history not excluded")
    losses.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    metrics.set(xlabel="epoch", ylabel="validation, full ranking")
    for axes in (losses, metrics):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _series(log_history: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(entry["epoch"], entry[name]) for entry in log_history if name in entry]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
