"""
Write a model card beside each file of results: a run's `results.json`, or what `hf-seqrec evaluate` wrote.

    hf-seqrec card runs/ml-1m/results.json
    hf-seqrec card model_cards/ml-1m/*.json

Curves are shown where they lie beside the results under the same name (`.png`).
"""

from collections.abc import Sequence
from pathlib import Path

from ..argument_parser import CommandParser
from ..checkpoints.card import render_model_card, results_note
from ..evaluation.results import read_results


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the cards."""
    parser = CommandParser("hf-seqrec card", __doc__ or "")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of results.")
    for path in parser.parse_args(command_line).results:
        results = read_results(path)
        model_type = results["model_type"]
        if model_type is None:
            raise ValueError(f"`results` must be of a model, got {path}, which has baselines alone. Leave it out.")
        card = path.with_suffix(".md")
        curves = path.with_suffix(".png")
        picture = curves.name if curves.is_file() else None
        n_items, note = results["statistics"]["n_items"], results_note(results)
        render_model_card(model_type, n_items, results, picture, note).save(card)
        print(f"Wrote {card}")
