"""
Write a model card beside each file of results: a run's `results.json`, or what `hf-seqrec evaluate` wrote.

    hf-seqrec card runs/ml-1m/results.json
    hf-seqrec card model_cards/ml-1m/*.json

Curves are shown where they lie beside the results under the same name (`.png`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..argument_parser import CommandParser
from ..checkpoints.card import render_model_card

_NEEDED = ("model_type", "statistics", "metrics", "protocol")


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the cards."""
    parser = CommandParser("hf-seqrec card", __doc__ or "")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of results.")
    for path in parser.parse_args(command_line).results:
        results = _read_results(path)
        card = path.with_suffix(".md")
        curves = path.with_suffix(".png")
        picture = curves.name if curves.is_file() else None
        render_model_card(results["model_type"], results["statistics"]["n_items"], results, picture).save(card)
        print(f"Wrote {card}")


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    missing = [name for name in _NEEDED if not isinstance(results, dict) or name not in results]
    if missing:
        raise ValueError(
            f"{path} does not hold results: {', '.join(missing)} missing. Take the `results.json` of a run, or what "
            "`hf-seqrec evaluate --output` wrote."
        )
    return results
