"""The control plane: health, metrics, status, feedback, docs. The relayed paths never come here."""

import logging
import time
from collections.abc import Iterator
from typing import Annotated, Any, Self

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.metrics import gauge, registry
from proxy.shadow import Shadows
from proxy.site import Site
from proxy.watch import Watch
from understudy import __version__
from understudy.errors import SpoolError
from understudy.exchange import Feedback
from understudy.ids import uuid7

log = logging.getLogger(__name__)
_STATES = {"closed": 0, "half_open": 1, "open": 2}


class FeedbackIn(BaseModel):
    """A user's word on an answer: at least one of the four, about one of the two."""

    model_config = ConfigDict(extra="forbid")
    exchange_id: str | None = Field(default=None, max_length=64)
    response_id: str | None = Field(default=None, max_length=256)
    score: float | None = Field(default=None, allow_inf_nan=False)
    label: str | None = Field(default=None, max_length=256)
    comment: str | None = Field(default=None, max_length=20_000)
    correction: str | None = Field(default=None, max_length=500_000)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.exchange_id is None) == (self.response_id is None):
            raise ValueError(
                "give exactly one of exchange_id (our header) and response_id (its id)"
            )
        if all(v is None for v in (self.score, self.label, self.comment, self.correction)):
            raise ValueError("give at least one of score, label, comment, correction")
        return self


def make_app(site: Site, shadows: Shadows, watch: Watch) -> FastAPI:
    """The FastAPI application of one worker."""
    app = FastAPI(
        title="Understudy proxy",
        version=__version__,
        docs_url="/understudy/docs",
        openapi_url="/understudy/openapi.json",
        redoc_url=None,
    )
    metrics = registry(site.metrics, lambda: _measures(site, shadows))

    @app.get("/healthz")
    def health() -> dict[str, str]:
        if site.draining:
            raise HTTPException(503, "draining")
        return {"status": "ok"}

    @app.get("/metrics")
    async def scrape() -> Response:
        return PlainTextResponse(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    @app.get("/understudy/v1/status")
    async def status() -> dict[str, Any]:
        return _status(site, shadows, watch)

    @app.post("/understudy/v1/feedback")
    async def feedback(given: Annotated[FeedbackIn, Body()]) -> dict[str, str]:
        frame = Feedback(feedback_id=uuid7(), at=time.time_ns() // 1_000_000, **given.model_dump())
        site.capture.feedback(frame)
        return {"feedback_id": frame.feedback_id}

    _answer_errors_like_openai(app)
    return app


def _answer_errors_like_openai(app: FastAPI) -> None:
    def shaped(status: int, message: str, kind: str) -> JSONResponse:
        error = {"message": message, "type": kind, "param": None, "code": None}
        return JSONResponse({"error": error}, status)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return shaped(error.status_code, str(error.detail), "invalid_request_error")

    @app.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return shaped(404, f"no {request.url.path} here", "invalid_request_error")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        text = f"{where}: {first['msg']}" if where else str(first["msg"])
        return shaped(422, text, "invalid_request_error")

    @app.exception_handler(SpoolError)
    async def unlogged(request: Request, error: SpoolError) -> Response:
        log.error("feedback refused: %s", error)
        answer = shaped(503, "the feedback cannot be kept now", "server_error")
        answer.headers["retry-after"] = "5"
        return answer


def _measures(site: Site, shadows: Shadows) -> Iterator[Metric]:
    records = CounterMetricFamily(
        "understudy_records", "Attempts by what became of their record", labels=["fate"]
    )
    for fate, count in vars(site.capture.counts).items():
        records.add_metric([fate], count)
    yield records
    breakers = GaugeMetricFamily(
        "understudy_breaker_state", "0 closed, 1 half open, 2 open", labels=["student"]
    )
    for name, breaker in site.students.breakers.items():
        breakers.add_metric([name], _STATES[breaker.state])
    yield breakers
    connections = CounterMetricFamily(
        "understudy_upstream_connections", "Upstream connections by use", labels=["pool", "use"]
    )
    for name, pool in (("primary", site.pool), ("beside", site.beside_pool)):
        for use in ("opened", "reused", "retried"):
            connections.add_metric([name, use], getattr(pool, use))
    yield connections
    yield gauge("understudy_policy_version", "Policy in force", site.current.policy.version)
    yield gauge(
        "understudy_spool_bytes", "Spool size on this host", site.capture.spool.used_bytes()
    )
    yield gauge("understudy_spool_frames", "Frames written", site.capture.spool.seq)
    yield gauge("understudy_beside_in_flight", "Second attempts under way", shadows.in_flight)
    for name in ("monitor", "controller"):
        alive = name not in site.current.dead
        yield gauge(f"understudy_{name}_alive", f"Whether the {name} gives signs of life", alive)


def _status(site: Site, shadows: Shadows, watch: Watch) -> dict[str, Any]:
    now = site.current
    return {
        "policy_version": now.policy.version,
        "config_hash": now.policy.config_hash,
        "last_error": watch.last_error or None,
        "dead": sorted(now.dead),
        "workloads": {
            name: {
                "mode": rule.mode,
                "weight": rule.weight,
                "owner": rule.owner,
                "student": rule.student.model if rule.student else None,
                "note": rule.note,
            }
            for name, rule in now.policy.workloads.items()
        },
        "breakers": {
            name: {"state": breaker.state, "failures": breaker.failures, "opened": breaker.opened}
            for name, breaker in site.students.breakers.items()
        },
        "records": vars(site.capture.counts),
        "beside_in_flight": shadows.in_flight,
        "spool_id": site.capture.spool.spool_id,
        "draining": site.draining,
    }
