"""Upload a folder to the Hub: names checked first, tried again where that may help, errors that say what to do."""

import logging
import shlex
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Any error of the connection: what is above the Hub's own in the library that huggingface_hub speaks HTTP with.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]
# Seconds to wait before each new try. What was uploaded is not sent again.
WAITS = (1.0, 4.0, 16.0)


class PushError(RuntimeError):
    """The Hub did not take what was pushed to it. The message says why, and how to go on."""


def check_repo_id(repo_id: str, name: str = "repo_id") -> None:
    """
    Raise where something cannot be the name of a repository on the Hub.

    Raises:
        ValueError: naming the argument `name`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`{name}` must be the name of a repository on the Hub, such as 'org/name', got {repo_id!r}: {error}"
        ) from error


def make_repository(
    repo_id: str,
    repo_type: str = "model",
    *,
    private: bool | None = None,
    token: str | None = None,
    space_sdk: str | None = None,
) -> str:
    r"""
    Make a repository where there is none yet, and return its full name; the arguments are those of [`upload`].

    Raises:
        ValueError: if `repo_id` is no name of a repository.
        PushError: if the Hub refuses it, or cannot be reached.
    """
    check_repo_id(repo_id)
    hub = HfApi(token=token)
    options: dict[str, Any] = {"repo_type": repo_type, "private": private, "space_sdk": space_sdk}
    return _patiently(lambda: hub.create_repo(repo_id, exist_ok=True, **options).repo_id, repo_id)


def upload(
    folder: str | Path,
    repo_id: str,
    repo_type: str = "model",
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    delete_patterns: Sequence[str] = (),
    space_sdk: str | None = None,
) -> CommitInfo:
    r"""
    Upload all of a folder and return the commit. A repository and a branch that are not there yet are made.

    A large upload that broke off goes on where it was: what the Hub has already is not sent again.

    Args:
        folder (`str`): What to upload; hidden files stay here.
        repo_id (`str`): `org/name`, or `name` for a repository of the token's user.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*):
            Who may see a new repository; one that is there keeps what it has. `None`: as the organization has it.
        revision (`str`, *optional*): Branch to commit to, by default `main`.
        token (`str`, *optional*): By default that of `hf auth login` or of the environment (`HF_TOKEN`).
        commit_message (`str`, *optional*): What the commit says.
        delete_patterns (`Sequence[str]`, *optional*): Delete files there that match, and are not here any more.
        space_sdk (`str`, *optional*): Of a Space.

    Raises:
        ValueError: if `repo_id` is no name of a repository.
        PushError: if the Hub refuses it, or cannot be reached.
    """
    name = make_repository(repo_id, repo_type, private=private, token=token, space_sdk=space_sdk)
    hub = HfApi(token=token)

    def commit() -> CommitInfo:
        if revision is not None:
            hub.create_branch(name, repo_type=repo_type, branch=revision, exist_ok=True)
        with warnings.catch_warnings():
            # A model has its catalog with it.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            return hub.upload_folder(
                repo_id=name,
                repo_type=repo_type,
                revision=revision,
                folder_path=folder,
                commit_message=commit_message,
                ignore_patterns=[".*", "*/.*"],
                delete_patterns=list(delete_patterns) or None,
            )

    return _patiently(commit, name)


def _patiently(act: Callable[[], _Result], repo_id: str) -> _Result:
    """
    Return what `act` does on the Hub, tried again after errors that may pass.

    Raises:
        PushError: with the reason, if it does not succeed.
    """
    for wait in (*WAITS, None):
        try:
            return act()
        except (_HTTP_ERROR, RuntimeError, ValueError, OSError) as error:
            cause = _http_error(error)
            if cause is None:
                raise
            if wait is None or not _may_pass(cause):
                raise PushError(f"The Hub did not take the push to {repo_id}: {_reason(cause)}") from error
            logger.warning("Pushing to %s: %s Trying again in %g s.", repo_id, _reason(cause), wait)
            time.sleep(wait)
    raise AssertionError  # the last wait is None


def how_to_push_again(folder: str | Path, repo_id: str) -> str:
    """Say that nothing was lost, and the command that pushes the rest."""
    command = shlex.join(["hf-seqrec", "push", str(folder), repo_id])
    return (
        f"Nothing is lost: {folder} is complete on this machine, and what the Hub has already will not be sent again. "
        f"Push it with `{command}`."
    )


def check_holds_no_token(paths: Sequence[Path], token: str | None = None) -> None:
    """
    Refuse to publish a file with the token in it. Looks into text files.

    Raises:
        ValueError: naming the file, not the token.
    """
    token = token or get_token()
    if not token:
        return
    for path in paths:
        if path.suffix in (".json", ".md", ".py", ".txt", ".yaml") and token in path.read_text("utf-8", "replace"):
            raise ValueError(f"{path} holds your Hub token, so it was not pushed. Take the token out of it.")


def _http_error(error: Exception) -> BaseException | None:
    """Find the answer of the Hub, or the failed transfer, that an error comes from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (_HTTP_ERROR, ConnectionError)):
        cause = cause.__cause__
    # What hf_xet reports of its transfers.
    return error if cause is None and isinstance(error, RuntimeError) else cause


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return False
    return status is None or status == 429 or status >= 500


def _reason(error: BaseException) -> str:
    status = _status(error)
    if status is None:
        return f"the transfer failed ({type(error).__name__}: {error})."
    said = getattr(error, "server_message", None) or type(error).__name__
    advice = {
        401: "Log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
        403: "The token needs to be allowed to write there: see https://huggingface.co/settings/tokens.",
        404: "There is no such repository or revision, or the token may not see it.",
    }
    return f"it answered {status} ({said}). {advice.get(status, '')}".rstrip()
