"""
Try a checkpoint in the browser: search titles, click a history together, see what it recommends after every click.

    hf-seqrec demo runs/ml-1m
    hf-seqrec demo my-name/mamba4rec-ml-1m --space spaces/my-demo

The second writes the files of a Space that shows the same page. Needs the extra `demo`, the second nothing.
"""

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..inference.recommendation import Source, check_top_k
from ..inference.recommender import Recommender
from ..installing import install_hint

# The version of gradio that the page was tried with; a Space is told to use it.
_GRADIO = "6.31.0"

# Most signs of what is shown of an item beside its title.
_LONGEST_DETAILS = 80

# gradio centres what is in a table.
_STYLE = (
    "<style>.hf-seqrec-list :is(th, td) { text-align: left !important; justify-content: start !important }</style>"
)

_APP = '''"""The page of a recommender; `python app.py` shows it on this machine."""

from hf_seqrec.serving.page import build_page

demo = build_page("{checkpoint}")

if __name__ == "__main__":
    demo.launch()
'''


class Shown(NamedTuple):
    r"""
    What the page shows for a history.

    Fields:
        history (`list[tuple[str, str]]`): Raw id and name of each item, the latest first.
        recommendations (`list[tuple[str, str, float]]`): Raw id, name and score, best first.
        explanation (`str`): What the scores are.
        source (`str`): `"model"`, or `"popularity"` where these are the most popular items.
    """

    history: list[tuple[str, str]]
    recommendations: list[tuple[str, str, float]]
    explanation: str
    source: Source


class Page:
    r"""
    What happens on the page, without the page: every click maps a history of raw ids to another one.

    Args:
        recommender ([`Recommender`]): The model and its catalog.
        top_k (`int`, *optional*, defaults to 10): How many items to recommend and to find; fewer where the catalog is
            smaller.
    """

    def __init__(self, recommender: Recommender, top_k: int = 10) -> None:
        self.recommender = recommender
        self.top_k = min(top_k, recommender.catalog.n_items)
        check_top_k(self.top_k, recommender.catalog.n_items)

    def search(self, text: str) -> list[tuple[str, str]]:
        """Return raw id and name of items that a text is about, the exact and the most popular first."""
        text = text.strip()
        catalog = self.recommender.catalog
        rows = catalog.find(text, limit=self.top_k) if text else catalog.rows_by_popularity[: self.top_k]
        return list(zip(catalog.decode(rows), self.names(rows), strict=True))

    def names(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the title of each row and what else the catalog knows of it, such as year and genre."""
        catalog = self.recommender.catalog
        columns = [name for name in catalog.table.column_names if name not in ("row", "item_id", "count", "title")]
        # A table without columns has no rows either.
        details = catalog.table.select(columns).take(rows - 1).to_pylist() if columns else [{} for _ in rows]
        return [
            " · ".join([title, *_details(known.values())])
            for title, known in zip(catalog.describe(rows), details, strict=True)
        ]

    def example(self) -> list[str]:
        """Return a history to start from: the three most popular items, or fewer where the catalog is smaller."""
        return self.recommender.catalog.decode(self.recommender.catalog.rows_by_popularity[:3])

    def add(self, history: list[str], offered: list[str], place: int) -> list[str]:
        """Return the history with the item offered at a place at its end; items may come again."""
        # Where nothing is offered, the page shows a line that says so.
        return [*history, offered[place]] if place < len(offered) else history

    def remove(self, history: list[str], place: int) -> list[str]:
        """Return the history without the item that is shown at a place; the latest is shown first, at 0."""
        return [item_id for shown, item_id in enumerate(reversed(history)) if shown != place][::-1]

    def show(self, history: list[str], include_seen: bool = False) -> Shown:
        """Say what the page shows for a history; the most popular items for an empty one."""
        catalog, model = self.recommender.catalog, self.recommender.model
        names = self.names(catalog.encode(history))
        (answer,) = self.recommender.recommend_many([history], self.top_k, exclude_seen=not include_seen)
        best_rows = catalog.encode([best.item_id for best in answer.recommendations])
        if answer.is_popularity:
            explanation = "No history yet: the most popular items. Their score is how often they are in the log."
        else:
            items = "1 item" if len(history) == 1 else f"{len(history)} items"
            explanation = f"After {items}, by {type(model).__name__} among {catalog.n_items:,}. Scores are logits."
        return Shown(
            history=list(zip(history, names, strict=True))[::-1],
            recommendations=[
                (best.item_id, name, best.score)
                for best, name in zip(answer.recommendations, self.names(best_rows), strict=True)
            ],
            explanation=explanation,
            source=answer.source,
        )


def build_page(name_or_path: str | Path, top_k: int = 10, revision: str | None = None) -> Any:
    r"""
    Return the page of a checkpoint as a `gradio.Blocks`, ready to `.launch()`.

    Args:
        name_or_path (`str`): A checkpoint folder or the id of a model on the Hub.
        top_k (`int`, *optional*, defaults to 10): How many items to recommend.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Raises:
        ImportError: if gradio is not installed.
        ValueError: if the checkpoint cannot be loaded.
    """
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise ImportError(f"The page needs gradio: {install_hint('demo')}.") from error

    page = Page(Recommender.from_pretrained(name_or_path, revision), top_k)
    catalog, model = page.recommender.catalog, page.recommender.model
    # Not an empty page; and the first click does not wait for the kernels to be compiled.
    example, popular = page.example(), page.search("")
    first = page.show(example)

    # What a visitor has clicked is in the browser's session, and nowhere on the server.
    def after(history: list[str], include_seen: bool) -> tuple[Any, ...]:
        shown = page.show(history, include_seen)
        rows = (gr.Dataset(samples=cells) for cells in _cells(shown))
        return history, *rows, shown.explanation, [item_id for item_id, _, _ in shown.recommendations]

    def found(text: str) -> tuple[Any, list[str]]:
        items = page.search(text)
        return gr.Dataset(samples=_lines(items, "Nothing found")), [item_id for item_id, _ in items]

    def pick(place: int, history: list[str], offered: list[str], include_seen: bool) -> tuple[Any, ...]:
        return after(page.add(history, offered, place), include_seen)

    def drop(place: int, history: list[str], include_seen: bool) -> tuple[Any, ...]:
        return after(page.remove(history, place), include_seen)

    def table(label: str, headers: list[str], cells: list[list[str]]) -> Any:
        return gr.Dataset(
            label=label,
            components=["textbox"] * len(headers),
            headers=headers,
            samples=cells,
            samples_per_page=page.top_k,
            type="index",
            layout="table",
            elem_classes="hf-seqrec-list",
        )

    title = f"{type(model).__name__}: what comes next?"
    with gr.Blocks(title=title) as blocks:
        history_state = gr.State(example)
        found_state = gr.State([item_id for item_id, _ in popular])
        recommended_state = gr.State([item_id for item_id, _, _ in first.recommendations])
        gr.Markdown(f"# {title}\nClick items in the order in which you met them; every click asks the model again.")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label=f"Search {catalog.n_items:,} titles", placeholder="Part of a title or an id")
                found_table = table("Click to add", ["Found"], _lines(popular, "Nothing found"))
            with gr.Column():
                with gr.Row():
                    include_seen = gr.Checkbox(label="Recommend these again", scale=2)
                    start = gr.Button("Example", scale=1)
                    clear = gr.Button("Clear", scale=1)
                history_table = table("Click to remove", ["History, the latest first"], _cells(first)[0])
            with gr.Column():
                explanation = gr.Markdown(first.explanation, container=True)
                recommended_table = table("Click to add", ["Recommended", "Score"], _cells(first)[1])
        outputs = [history_state, history_table, recommended_table, explanation, recommended_state]
        # One search at a time, and the last one is of all that was typed.
        text.change(found, text, [found_table, found_state], show_progress="hidden", trigger_mode="always_last")
        asked = {"outputs": outputs, "show_progress": "hidden"}
        found_table.click(pick, [found_table, history_state, found_state, include_seen], **asked)
        recommended_table.click(pick, [recommended_table, history_state, recommended_state, include_seen], **asked)
        history_table.click(drop, [history_table, history_state, include_seen], **asked)
        include_seen.change(after, [history_state, include_seen], **asked)
        start.click(lambda include_seen: after(example, include_seen), include_seen, **asked)
        clear.click(lambda include_seen: after([], include_seen), include_seen, **asked)
        gr.HTML(_STYLE)
    return blocks


def write_space(folder: str | Path, repo_id: str, title: str | None = None) -> Path:
    r"""
    Write `app.py`, `requirements.txt` and `README.md` of a Space that shows a model's page; return the folder.

    Args:
        folder (`str`): Where to write them; made if it is not there.
        repo_id (`str`): The model on the Hub.
        title (`str`, *optional*): Of the Space. Defaults to the name of the model.

    Raises:
        ValueError: if `repo_id` is not the id of a model on the Hub.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`repo_id` must name a model on the Hub, as in 'org/model', got {repo_id!r}: {error}"
        ) from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "title": title or repo_id.split("/")[-1],
        "sdk": "gradio",
        "sdk_version": _GRADIO,
        "app_file": "app.py",
        "pinned": False,
        "license": "apache-2.0",
        "models": [repo_id],
        "tags": ["sequential-recommendation", "recommender-system"],
        "short_description": "Click a history together, see what comes next",
    }
    text = f"Search titles, click a history together, and see what `{repo_id}` recommends after every click."
    card = f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# {metadata['title']}\n\n{text}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "app.py").write_text(_APP.format(checkpoint=repo_id), encoding="utf-8")
    version = importlib.metadata.version("hf-seqrec")
    (folder / "requirements.txt").write_text(f"hf-seqrec[cpu]>={version}\n", encoding="utf-8")
    return folder


def _cells(shown: Shown) -> tuple[list[list[str]], list[list[str]]]:
    """Return the cells of the history and of the recommendations; gradio hides a table without any."""
    recommended = [[name, f"{score:,.4g}"] for _, name, score in shown.recommendations]
    return _lines(shown.history, "Nothing yet"), recommended or [["Nothing is left to recommend", ""]]


def _lines(items: list[tuple[str, str]], nothing: str) -> list[list[str]]:
    return [[name] for _, name in items] or [[nothing]]


def _details(values: Iterable[Any]) -> list[str]:
    """Return what a catalog knows of an item as short texts, without what is missing."""
    texts = (", ".join(map(str, value)) if isinstance(value, list) else value for value in values)
    shown = [str(text).replace("|", ", ") for text in texts if text is not None and text != ""]
    return [text if len(text) <= _LONGEST_DETAILS else f"{text[: _LONGEST_DETAILS - 1]}…" for text in shown]
