"""
A plain HTTP server for a checkpoint: recommendations from histories, and live sessions.

    hf-seqrec serve runs/ml-1m --port 8000
    curl -X POST localhost:8000/recommend -H "Content-Type: application/json" -d '{"history": ["1193", "661"]}'
    curl -X POST localhost:8000/sessions/ann/events -H "Content-Type: application/json" -d '{"item_ids": ["1193"]}'
    curl "localhost:8000/sessions/ann/recommendations?top_k=5"

/docs shows all of it. There is no authentication: let it listen to what may ask it, by default this machine.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar

from ..inference.checks import NonFiniteScoresError
from ..inference.recommendation import Answer
from ..inference.recommender import Recommender
from ..inference.sessions import SessionStore
from ..installing import install_hint
from .batching import AddEvents, EndSession, ModelThread, OverloadedError, RecommendHistory, RecommendSession

try:
    from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints
    from starlette.convertors import PathConvertor, register_url_convertor
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        f"The server needs FastAPI and uvicorn: {install_hint('serve')}. "
        "Recommending in Python (`hf_seqrec.Recommender`) needs neither."
    ) from error

# What one request may ask for. OpenAPI says so.
MOST_ITEMS = 10_000
MOST_RECOMMENDATIONS = 1_000
LONGEST_ID = 256
_MOST_ERRORS = 10

ItemId = StrictInt | Annotated[str, StringConstraints(strict=True, min_length=1, max_length=LONGEST_ID)]
ItemIds = Annotated[list[ItemId], Field(max_length=MOST_ITEMS)]
User = Annotated[
    str,
    Path(
        min_length=1,
        max_length=LONGEST_ID,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Any id of a user, without control characters.",
    ),
]


class _UserConvertor(PathConvertor):
    """In a route `{user:user}` takes ids with slashes and line breaks too, which arrive decoded."""

    regex = "(?s:.*)"


register_url_convertor("user", _UserConvertor())


class _Body(BaseModel):
    # A misspelt field is refused, not ignored.
    model_config = ConfigDict(extra="forbid")


class _HistoryRequest(_Body):
    """What a request to recommend from a history has but `top_k`, which depends on the catalog."""

    history: Annotated[ItemIds, Field(description="Raw item ids, oldest first.", examples=[["1193", "661"]])]
    exclude_seen: Annotated[bool, Field(description="Leave out the items of the history.")] = True
    candidates: Annotated[ItemIds | None, Field(description="Recommend only from these.", min_length=1)] = None
    exclude: Annotated[ItemIds | None, Field(description="Never recommend these.")] = None


class _EventsRequest(_Body):
    """What a request to add items to a session has but `top_k`, which depends on the catalog."""

    item_ids: Annotated[ItemIds, Field(min_length=1, description="Raw item ids, oldest first.", examples=[["1193"]])]
    exclude_seen: bool = True


class Item(BaseModel):
    """A recommended item."""

    item_id: str
    score: float
    title: str


class Recommendations(BaseModel):
    """Recommended items, best first: `top_k`, or fewer where fewer are left."""

    recommendations: list[Item]
    source: Annotated[
        Literal["model", "popularity"],
        Field(description="`popularity` where there is no known item to go by: scores are counts then."),
    ]


class HistoryResponse(Recommendations):
    """Recommendations from a history."""

    unknown_items: Annotated[int, Field(description="Items that the catalog does not have; they were left out.")]
    unknown_candidates: Annotated[
        int, Field(description="Candidates that the catalog does not have; they were left out.")
    ] = 0


class SessionResponse(Recommendations):
    """Recommendations from a session."""

    events: Annotated[int, Field(description="Items that the session has had.")]


class EventsResponse(BaseModel):
    """A session after new events."""

    events: Annotated[int, Field(description="Items that the session has had.")]
    unknown_items: Annotated[int, Field(description="New items that the catalog does not have; they were left out.")]
    recommendations: list[Item] | None = None
    source: Literal["model", "popularity"] | None = None


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Health(BaseModel):
    """What the server serves, and how full it is."""

    status: Literal["ok"] = "ok"
    model_type: str
    items: int
    sessions: int
    max_sessions: int
    evicted_sessions: int
    bytes_per_session: int
    waiting_requests: int


@dataclass(frozen=True)
class ServerOptions:
    r"""
    How a server runs.

    Args:
        max_sessions (`int`, *optional*, defaults to 10,000): The least recently used make room for more.
        sessions_file (`Path`, *optional*): Sessions are read from it at the start, if it is there, and saved into it
            at the end.
        max_body_bytes (`int`, *optional*, defaults to 1 MiB): Larger requests are refused (413).
        max_batch, max_wait_ms, max_waiting: Those of [`ModelThread`]; a request beyond the last is refused (503).
    """

    max_sessions: int = 10_000
    sessions_file: FilePath | None = None
    max_body_bytes: int = 2**20
    max_batch: int = 64
    max_wait_ms: float = 1.0
    max_waiting: int = 1024


Result = TypeVar("Result")


class _Server:
    """What all requests share: the thread of the model, and the sessions where the model carries state."""

    def __init__(self, recommender: Recommender, options: ServerOptions) -> None:
        self.recommender, self.options = recommender, options
        self.stateless_because = recommender.model.config.stateless_because
        self.most_recommendations = min(MOST_RECOMMENDATIONS, recommender.catalog.n_items)
        self.store: SessionStore | None = None
        if self.stateless_because is None:
            self.store = SessionStore(recommender.model, recommender.catalog, max_users=options.max_sessions)
        elif options.sessions_file is not None:
            raise ValueError(f"`sessions_file` needs a model that carries state, but {self.stateless_because}.")
        if self.store is not None and options.sessions_file is not None and options.sessions_file.exists():
            self.store.restore(options.sessions_file)
        self.thread = ModelThread(recommender, self.store, options.max_batch, options.max_wait_ms, options.max_waiting)

    async def do(self, job: Any) -> Any:
        """Have a job done by the model's thread, without blocking other requests."""
        try:
            return await asyncio.wrap_future(self.thread.submit(job).done)
        except OverloadedError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "1"}) from error
        except NonFiniteScoresError as error:
            raise HTTPException(500, str(error)) from error
        except ValueError as error:
            # In the form of all answers with this status.
            raise HTTPException(422, [{"loc": ["body"], "msg": str(error), "type": "value_error"}]) from error

    def need_sessions(self) -> None:
        """Refuse what needs sessions, where there are none."""
        if self.store is None:
            raise HTTPException(
                501,
                f"This model has no sessions: {self.stateless_because}. Send the whole history to /recommend.",
            )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Work while the server runs, and save the sessions when it stops."""
        self.thread.start()
        yield
        self.thread.stop()
        if self.store is not None and self.options.sessions_file is not None:
            self.store.save(self.options.sessions_file)

    def health(self) -> Health:
        """Say what is served."""
        store = self.store
        return Health(
            model_type=self.recommender.model.config.model_type,
            items=self.recommender.catalog.n_items,
            sessions=0 if store is None else len(store),
            max_sessions=0 if store is None else store.max_users,
            evicted_sessions=0 if store is None else store.evictions,
            bytes_per_session=0 if store is None else store.bytes_per_user,
            waiting_requests=self.thread.waiting,
        )


def create_app(recommender: Recommender, options: ServerOptions | None = None) -> FastAPI:
    r"""
    Make the application that `hf-seqrec serve` runs, for any ASGI server.

    Sessions live in one process: run it with one worker.

    Raises:
        ValueError: if the file of sessions belongs to another model or is damaged.
    """
    server = _Server(recommender, options or ServerOptions())
    app = FastAPI(
        title="hf_seqrec",
        description=f"Recommendations of a {recommender.model.config.model_type} model over "
        f"{recommender.catalog.n_items:,} items.",
        lifespan=server.lifespan,
        responses=_refusals(413, 503),
    )
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    app.add_middleware(BodyLimit, max_bytes=server.options.max_body_bytes)
    _add_routes(app, server)
    return app


async def _say_what_is_wrong(request: Request, error: Exception) -> Response:
    """Answer 422 with the first few errors. FastAPI's own answer has all of them, each with the input once more."""
    assert isinstance(error, RequestValidationError)  # it is registered for no other
    first = [{name: problem[name] for name in ("loc", "msg", "type")} for problem in error.errors()[:_MOST_ERRORS]]
    # As ASCII: a name may hold half of a surrogate pair, which UTF-8 cannot say.
    return Response(json.dumps({"detail": first}), 422, media_type="application/json")


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe answers of one sentence, for OpenAPI."""
    reasons = {
        404: "There is no such session.",
        413: "The body is too large.",
        501: "The model has no sessions.",
        503: "Too many requests are waiting.",
    }
    return {status: {"model": Problem, "description": reasons[status]} for status in statuses}


def _add_routes(app: FastAPI, server: _Server) -> None:
    _add_histories(app, server)
    _add_sessions(app, server)

    @app.get("/health", summary="Say what is served, and how full the server is")
    async def health() -> Health:
        return server.health()


def _add_histories(app: FastAPI, server: _Server) -> None:
    most = server.most_recommendations

    class HistoryRequest(_HistoryRequest):
        """Recommend from a history."""

        top_k: Annotated[int, Field(ge=1, le=most)] = min(10, most)

    @app.post("/recommend", summary="Recommend what comes next after a history")
    async def recommend(request: HistoryRequest) -> HistoryResponse:
        answer: Answer = await server.do(RecommendHistory(**dict(request)))
        return HistoryResponse(
            **_shown(answer), unknown_items=answer.unknown_items, unknown_candidates=answer.unknown_candidates
        )


def _add_sessions(app: FastAPI, server: _Server) -> None:
    most = server.most_recommendations
    sessions: dict[str, Any] = {"dependencies": [Depends(server.need_sessions)], "responses": _refusals(501)}

    class EventsRequest(_EventsRequest):
        """Add items to a session, and recommend at once where `top_k` is given."""

        top_k: Annotated[int, Field(ge=1, le=most)] | None = None

    @app.post("/sessions/{user:user}/events", summary="Add items to a user's session", **sessions)
    async def add_events(user: User, request: EventsRequest) -> EventsResponse:
        done = await server.do(AddEvents(user, **dict(request)))
        shown = {} if done.answer is None else _shown(done.answer)
        return EventsResponse(events=done.events, unknown_items=done.unknown_items, **shown)

    @app.get("/sessions/{user:user}/recommendations", summary="Recommend from a user's session", **sessions)
    async def recommend_session(
        user: User, top_k: Annotated[int, Query(ge=1, le=most)] = min(10, most), exclude_seen: bool = True
    ) -> SessionResponse:
        done = await server.do(RecommendSession(user, top_k, exclude_seen))
        return SessionResponse(**_shown(done.answer), events=done.events)

    sessions["responses"] = _refusals(404, 501)

    @app.delete("/sessions/{user:user}", status_code=204, summary="Forget a user's session", **sessions)
    async def end_session(user: User) -> None:
        if not await server.do(EndSession(user)):
            raise HTTPException(404, f"There is no session of user {user!r}.")


def _shown(answer: Answer) -> dict[str, Any]:
    return {
        "recommendations": [best._asdict() for best in answer.recommendations],
        "source": answer.source,
    }


class BodyLimit:
    """Refuses requests with a body of more than `max_bytes` before anything reads it whole."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body as far as it may go, and hand it on in one piece."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await self._refuse(scope, receive, send)
            return
        body, has_more = b"", True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                await self._refuse(scope, receive, send)
                return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"The body of a request must be at most {self.max_bytes:,} bytes. Send less at once."
        await JSONResponse({"detail": detail}, 413, headers={"Connection": "close"})(scope, receive, send)
