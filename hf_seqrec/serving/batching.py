"""One thread for all of a server's model work, which takes what arrives at about the same time together."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from ..inference.recommendation import Answer, Rows, check_top_k
from ..inference.recommender import Recommender
from ..inference.sessions import SessionStore

ItemIds = list[str | int]


class OverloadedError(RuntimeError):
    """More requests are waiting than the server is willing to let wait."""


@dataclass
class RecommendHistory:
    """Recommend from a history; gives an [`Answer`]."""

    history: ItemIds
    top_k: int = 10
    exclude_seen: bool = True
    candidates: ItemIds | None = None
    exclude: ItemIds | None = None
    done: "Future[Answer]" = field(default_factory=Future)


@dataclass
class RecommendSession:
    """Recommend from a user's session; gives a [`SessionAnswer`]."""

    user: str
    top_k: int = 10
    exclude_seen: bool = True
    done: "Future[SessionAnswer]" = field(default_factory=Future)


@dataclass
class AddEvents:
    """Add items to a user's session, and recommend where `top_k` is given; gives a [`SessionAnswer`]."""

    user: str
    item_ids: ItemIds
    top_k: int | None = None
    exclude_seen: bool = True
    done: "Future[SessionAnswer]" = field(default_factory=Future)


@dataclass
class EndSession:
    """Forget a user's session; gives whether there was one."""

    user: str
    done: "Future[bool]" = field(default_factory=Future)


Job = RecommendHistory | RecommendSession | AddEvents | EndSession
AnyJob = TypeVar("AnyJob", RecommendHistory, RecommendSession, AddEvents, EndSession)


@dataclass
class SessionAnswer:
    """How many items a session has had, how many of the new ones were unknown, and what is recommended if asked."""

    events: int
    unknown_items: int = 0
    answer: Answer | None = None


class ModelThread:
    r"""
    Runs jobs in a thread of its own: those that wait together go through the model together.

    Of one batch, events are added first, then recommendations made, then sessions ended. Nobody can tell: who sends a
    request after the answer to another finds them in different batches.

    Args:
        recommender ([`Recommender`]): Answers histories.
        store ([`SessionStore`], *optional*): Keeps sessions; without one, jobs about sessions are not to be submitted.
        max_batch (`int`, *optional*, defaults to 64): How many jobs at most go together.
        max_wait_ms (`float`, *optional*, defaults to 1.0): How long the first of a batch waits for others.
        max_waiting (`int`, *optional*, defaults to 1024): How many jobs may wait.

    Raises:
        ValueError: if `store.max_users` is less than `max_batch`: users of one batch would evict each other.
    """

    def __init__(
        self,
        recommender: Recommender,
        store: SessionStore | None = None,
        max_batch: int = 64,
        max_wait_ms: float = 1.0,
        max_waiting: int = 1024,
    ) -> None:
        if store is not None and store.max_users < max_batch:
            raise ValueError(
                f"`max_users` must be at least `max_batch`, or users of one batch would evict each other, got "
                f"{store.max_users} and {max_batch}. Raise the first or lower the second."
            )
        self.recommender, self.store = recommender, store
        self.max_batch, self.max_wait, self.max_waiting = max_batch, max_wait_ms / 1000, max_waiting
        self._is_stopping = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is waiting, and end."""
        self._is_stopping = True
        self._jobs.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    def submit(self, job: AnyJob) -> AnyJob:
        """
        Put a job at the end of the queue, and return it; its `done` will have the result.

        Raises:
            OverloadedError: if too many wait already, or the thread is stopping.
            ValueError: if `top_k` is not in 1..n_items.
        """
        # Here, so that it fails alone and not with its whole batch.
        top_k = getattr(job, "top_k", None)
        if top_k is not None:
            check_top_k(top_k, self.recommender.catalog.n_items)
        if self._is_stopping:
            raise OverloadedError("The server is shutting down.")
        if self.waiting >= self.max_waiting:
            raise OverloadedError(f"{self.waiting} requests are waiting already. Try again in a moment.")
        self._jobs.put(job)
        return job

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            batch, goes_on = self._next_batch()
            # Who has given up waiting gets nothing done.
            self._work([job for job in batch if job.done.set_running_or_notify_cancel()])

    def _next_batch(self) -> tuple[list[Job], bool]:
        """Wait for a job and those that come soon after it; also whether there will be more."""
        batch: list[Job] = []
        deadline: float | None = None
        while len(batch) < self.max_batch:
            try:
                job = self._jobs.get(timeout=None if deadline is None else max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                break
            if job is None:
                return batch, False
            batch.append(job)
            deadline = deadline or time.perf_counter() + self.max_wait
        return batch, True

    def _work(self, batch: list[Job]) -> None:
        adding = [job for job in batch if isinstance(job, AddEvents)]
        self._finish(adding, self._add)
        asking = [job for job in batch if isinstance(job, RecommendSession)]
        for _, group in _grouped(asking, lambda job: job.exclude_seen):
            self._finish(group, self._recommend_sessions)
        from_history = [job for job in batch if isinstance(job, RecommendHistory)]
        # Whoever has candidates or excluded items of their own has a call of their own.
        for (_, is_filtered), group in _grouped(from_history, lambda job: (job.exclude_seen, _is_filtered(job))):
            for together in [[job] for job in group] if is_filtered else [group]:
                self._finish(together, self._recommend_histories)
        self._finish([job for job in batch if isinstance(job, EndSession)], self._end)

    @staticmethod
    def _finish(jobs: "list[AnyJob]", work: "Callable[[list[AnyJob]], list[Any]]") -> None:
        """Hand out results, or what went wrong, to those who wait for it."""
        if not jobs:
            return
        try:
            results = work(jobs)
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to those who asked, not to this thread
            for job in jobs:
                job.done.set_exception(error)
            return
        for job, result in zip(jobs, results, strict=True):
            job.done.set_result(result)

    def _add(self, jobs: list[AddEvents]) -> list[SessionAnswer]:
        store = self._sessions
        parts: dict[str, list[Rows]] = {}
        unknown = []
        for job in jobs:
            rows, unknown_items = self.recommender.catalog.encode_known(job.item_ids)
            parts.setdefault(job.user, []).append(rows)
            unknown.append(unknown_items)
        store.add_rows({user: np.concatenate(rows) for user, rows in parts.items()})
        results = [SessionAnswer(store.events(job.user), count) for job, count in zip(jobs, unknown, strict=True)]
        asking = [(job, result) for job, result in zip(jobs, results, strict=True) if job.top_k is not None]
        for exclude_seen, group in _grouped(asking, lambda pair: pair[0].exclude_seen):
            top_k = max(job.top_k or 0 for job, _ in group)
            answers = store.recommend_many([job.user for job, _ in group], top_k, exclude_seen)
            for (job, result), answer in zip(group, answers, strict=True):
                result.answer = _first(answer, job.top_k)
        return results

    def _recommend_sessions(self, jobs: list[RecommendSession]) -> list[SessionAnswer]:
        store, top_k = self._sessions, max(job.top_k for job in jobs)
        answers = store.recommend_many([job.user for job in jobs], top_k, jobs[0].exclude_seen)
        return [
            SessionAnswer(store.events(job.user), answer=_first(answer, job.top_k))
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _recommend_histories(self, jobs: list[RecommendHistory]) -> list[Answer]:
        top_k, first = max(job.top_k for job in jobs), jobs[0]
        histories = [job.history for job in jobs]
        answers = self.recommender.recommend_many(
            histories, top_k, first.exclude_seen, first.candidates, first.exclude
        )
        return [_first(answer, job.top_k) for job, answer in zip(jobs, answers, strict=True)]

    def _end(self, jobs: list[EndSession]) -> list[bool]:
        return [self._sessions.remove(job.user) for job in jobs]

    @property
    def _sessions(self) -> SessionStore:
        assert self.store is not None  # who submits jobs about sessions has one
        return self.store


def _is_filtered(job: RecommendHistory) -> bool:
    return job.candidates is not None or bool(job.exclude)


def _first(answer: Answer, top_k: int | None) -> Answer:
    return answer._replace(recommendations=answer.recommendations[:top_k])


def _grouped(values: "Iterable[Any]", key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    return [(name, list(group)) for name, group in groupby(sorted(values, key=key), key)]
