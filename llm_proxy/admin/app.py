"""The operators' side as a FastAPI app: health, metrics and `/admin`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from llm_proxy.admin.answers import answer_errors
from llm_proxy.admin.approval_links import ApprovalLinks
from llm_proxy.admin.routes import Admin, schemas
from llm_proxy.telemetry.metrics import CONTENT_TYPE
from llm_proxy.version import VERSION
from llm_proxy.worker import Worker


def admin_app(worker: Worker) -> FastAPI:
    """Everything that isn't a model route."""
    app = FastAPI(
        title="llm-proxy", version=VERSION, docs_url=None, redoc_url=None, openapi_url="/admin/openapi.json"
    )

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def here() -> PlainTextResponse:
        return PlainTextResponse("llm-proxy: set base_url to this address + /v1\n")

    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"])
    async def ready() -> JSONResponse:
        reasons = [reason for reason in (worker.failed, _store(worker)) if reason]
        status = "not ready" if reasons else "ready"
        told: dict[str, Any] = {"status": status, "reasons": reasons}
        if worker.policy is not None and worker.policy.problem:
            told["warnings"] = ["the policy file can't be used, the one before stays in force: see the log"]
        return JSONResponse(told, 503 if reasons else 200)

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        return Response(worker.services.metrics.render(), media_type=CONTENT_TYPE)

    _ = (here, live, ready, metrics)
    app.include_router(Admin(worker).router())
    ApprovalLinks(worker).add_to(app)
    answer_errors(app)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Adds to the OpenAPI document what bodies hold and how to get in; both when asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas())
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi


def _store(worker: Worker) -> str:
    return "" if worker.services.writer.healthy else "the store can't be written"
