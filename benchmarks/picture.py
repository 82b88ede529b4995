"""The picture that several benchmarks draw: time and memory of a position, by the length of the history."""

from pathlib import Path
from typing import Any


def draw_by_length(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """
    Draw a line for every way; where cost grows as the length does, it is level.

    Args:
        rows (`list[dict]`): With `way`, `length`, `positions` (of the whole batch), `seconds` and `memory_bytes`,
            which is `None` where it is not known.
        title (`str`): Above the picture.
        path (`Path`): Where to write it, as a .png or .svg.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    all_lengths = sorted({row["length"] for row in rows})
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        lengths = [row["length"] for row in own]
        axes[0].plot(lengths, [1e6 * row["seconds"] / row["positions"] for row in own], marker="o", label=way)
        if all(row["memory_bytes"] is not None for row in own):
            axes[1].plot(lengths, [row["memory_bytes"] / row["positions"] / 2**10 for row in own], marker="o")
    for axis, label in zip(axes, ("milliseconds per 1,000 positions", "KiB per position"), strict=True):
        axis.set(xlabel="length of the history", ylabel=label, xscale="log", yscale="log")
        axis.set_xticks(all_lengths, [f"{length:,}" for length in all_lengths])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
