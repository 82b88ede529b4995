"""What a Trainer pushes to the Hub: checkpoints as they are saved and at the end, with their catalog and our card."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ..checkpoints.card import CURVES_FILE, write_model_card
from ..evaluation.results import Results
from ..hub.push import checked_files, push_checkpoint
from ..hub.upload import PushError, how_to_push_again, make_repository, upload

logger = logging.get_logger(__name__)

# Beside the checkpoints, where a link to a file costs nothing; hidden, so that nothing takes it for one.
_STAGED = ".push-"


class PushingTrainer(Trainer):
    """
    transformers' [`Trainer`] pushing what this package's users load: no pickled arguments, a catalog, measured cards.

    `args.push_to_hub`, `hub_model_id`, `hub_strategy` and the others mean what they mean there. A failed push of an
    intermediate checkpoint is a warning and training goes on; a failed push at the end raises, with all of the run
    in its folder.
    """

    # What the run measured, for the card; `hf-seqrec train` sets it.
    results: Results | None = None
    # transformers' own declare these as the `None` that they start with.
    hub_model_id: Any
    push_in_progress: Any

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Make the repository, before anything is trained.

        Raises:
            PushError: if the Hub refuses it, or cannot be reached.
        """
        if not self.is_world_process_zero():
            return
        for left in Path(str(self.args.output_dir)).glob(f"{_STAGED}*"):
            shutil.rmtree(left)
        self.hub_model_id = make_repository(
            self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name,
            private=self.args.hub_private_repo if private is None else private,
            token=token or self.args.hub_token,
        )
        self.push_in_progress = None

    def create_model_card(  # type: ignore[override]  # the rest is in `kwargs`
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        finetuned_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        r"""
        Write the card of what was measured, instead of the draft that [`Trainer`] would put in its place.

        Args:
            language, license, tags, finetuned_from: More metadata for the Hub.
            kwargs: The rest of [`Trainer.create_model_card`]'s arguments is in the results already.
        """
        if not self.is_world_process_zero():
            return
        model: Any = self.model
        path = write_model_card(str(self.args.output_dir), model.config, self.results, self.hub_model_id)
        more = {"language": language, "license": license, "base_model": finetuned_from}
        more = {name: value for name, value in more.items() if value is not None}
        if not more and not tags:
            return
        card = ModelCard.load(path)
        for name, value in more.items():
            card.data[name] = value
        card.data["tags"] = [*card.data["tags"], *([tags] if isinstance(tags, str) else tags or [])]
        card.save(path)

    def push_to_hub(  # type: ignore[override]  # transformers' own returns more than it says, too
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        r"""
        Save the model and push it with its catalog, card, curves and results. For all processes to call.

        Args:
            commit_message, blocking, token, revision, private: See [`Trainer.push_to_hub`].
            kwargs: For [`create_model_card`].

        Raises:
            PushError: if the Hub refuses it, or cannot be reached. What was trained is in `args.output_dir`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        options: dict[str, Any] = {"commit_message": commit_message, "token": token, "revision": revision}
        return self.push_saved(**options) if blocking else HfApi().run_as_future(self.push_saved, **options)

    def push_saved(
        self, commit_message: str | None = "End of training", token: str | None = None, revision: str | None = None
    ) -> CommitInfo:
        """
        Push what is saved in `args.output_dir`; for the main process, also after [`Trainer.end`].

        Raises:
            PushError: if the Hub refuses it, or cannot be reached. What was trained is in `args.output_dir`.
        """
        self._finish_current_push()
        try:
            return push_checkpoint(
                str(self.args.output_dir),
                str(self.hub_model_id),
                revision=revision or self.args.hub_revision,
                token=token or self.args.hub_token,
                commit_message=commit_message or "Upload model",
            )
        except PushError as error:
            again = how_to_push_again(str(self.args.output_dir), str(self.hub_model_id))
            raise PushError(f"{error} {again}") from error

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background, unless the one before is still on its way."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        on_its_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if on_its_way and not self.args.hub_always_push:
            return
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.create_model_card()
        checkpoint, output_dir = Path(checkpoint_folder), Path(str(self.args.output_dir))
        # Links, as the checkpoint may be rotated away meanwhile; what the run writes again is copied.
        staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=output_dir))
        _link(checked_files(checkpoint), staged)
        for name in ("README.md", CURVES_FILE):
            if (output_dir / name).is_file():
                shutil.copyfile(output_dir / name, staged / name)
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            whole = staged / ("last-checkpoint" if strategy == HubStrategy.CHECKPOINT else checkpoint.name)
            whole.mkdir()
            _link([path for path in checkpoint.iterdir() if path.is_file()], whole)
        message = f"Training in progress, step {self.state.global_step}"
        jobs: Any = [HfApi().run_as_future(self._push_staged, staged, message)]
        self.push_in_progress = PushInProgress(jobs)

    def _push_staged(self, staged: Path, message: str) -> None:
        try:
            upload(
                staged,
                str(self.hub_model_id),
                revision=self.args.hub_revision,
                token=self.args.hub_token,
                commit_message=message,
            )
        finally:
            shutil.rmtree(staged)

    def _finish_current_push(self) -> None:
        """Wait for the push on its way, and say if it failed."""
        super()._finish_current_push()
        if getattr(self, "push_in_progress", None) is None:
            return
        for job in self.push_in_progress.jobs:
            error = job.exception()
            if error is not None:
                known = isinstance(error, PushError)
                logger.warning(
                    f"A checkpoint was not pushed, and training goes on. {error}", exc_info=None if known else error
                )
        self.push_in_progress = None


def _link(files: Sequence[Path], folder: Path) -> None:
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
