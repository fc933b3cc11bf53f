"""Phoenix for tests: the real server, from its package, in a venv of its own; and what is asked of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.proxy import free_port

ROOT = Path(__file__).resolve().parents[2]
START_S = 300.0
"""It takes 15 s, and 45 s on a busy machine; the first time it compiles what it is made of."""
INGEST_S = 60.0
PROJECT = "llm-proxy"
"""`openinference.project.name` of the proxy's resource: telemetry.service_name."""

_SPANS = """
query($id: ID!, $filter: String) { node(id: $id) { ... on Project {
spans(first: 1000, filterCondition: $filter) {
  edges { node {
    spanId name spanKind statusCode statusMessage parentId attributes
    tokenCountPrompt tokenCountCompletion tokenCountTotal
    tokenPromptDetails { cacheRead cacheWrite }
    costSummary { total { cost tokens } prompt { cost } completion { cost } }
    events { name } trace { traceId session { sessionId } }
  } } } } } }
"""
_PRICED = """
mutation($input: CreateModelMutationInput!) { createModel(input: $input) { model { id name } } }
"""


class Phoenix:
    """A running server at `url`, which takes OTLP/HTTP there too."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        """The JSON at a path of the REST API."""
        asked = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return json.load(reply)

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` that GraphQL answers; AssertionError of what it complains."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        asked = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as reply:
            answer = json.load(reply)
        assert not answer.get("errors"), answer["errors"]
        return answer["data"]

    def price(self, model: str, **per_million: float) -> None:
        """Tells it what a model costs, in US dollars: as a person would in Settings, Models."""
        costs = [
            {
                "tokenType": kind,
                "costPerMillionTokens": dollars,
                "kind": "COMPLETION" if kind in ("output", "reasoning") else "PROMPT",
            }
            for kind, dollars in per_million.items()
        ]
        self.ask(_PRICED, input={"name": model, "namePattern": f"^{model}$", "costs": costs})

    def spans(self, condition: str = "") -> list[dict[str, Any]]:
        """The proxy's spans for which a `filterCondition` holds, `attributes` parsed; none at first."""
        projects = {p["name"]: p["id"] for p in self.get("/v1/projects")["data"]}
        if PROJECT not in projects:
            return []
        node = self.ask(_SPANS, id=projects[PROJECT], filter=condition)["node"]
        found = [edge["node"] for edge in node["spans"]["edges"]]
        return [{**span, "attributes": json.loads(span["attributes"])} for span in found]

    def spans_by_attribute(self, name: str, value: str) -> list[dict[str, Any]]:
        """The same search by the REST API: an attribute that has exactly this value."""
        path = f"/v1/projects/{PROJECT}/spans"
        return self.get(path, attribute=f"{name}:{value}", limit="1000")["data"]

    def awaited(self, condition: str, count: int) -> list[dict[str, Any]]:
        """Waits until `count` spans or more are there: it answers 200 before it has written them."""
        ends = time.monotonic() + INGEST_S
        while len(found := self.spans(condition)) < count:
            assert time.monotonic() < ends, f"{len(found)} of {count} spans for {condition!r}"
            time.sleep(0.25)
        return found


@contextmanager
def serving_phoenix(folder: Path) -> Generator[Phoenix]:
    """A server with an empty store in `folder`, which ends with this."""
    program = ROOT / ".venv-phoenix" / "bin" / "phoenix"
    assert program.exists(), f"{program} isn't there: run `make test-phoenix`, which installs it"
    port = free_port()
    told = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    log = folder / "phoenix.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(program), "serve"], env=os.environ | told, stdout=output, stderr=output, cwd=folder
        )
    try:
        _come_up(process, f"http://127.0.0.1:{port}", log)
        yield Phoenix(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _come_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except OSError:
            ended = process.poll() is not None
            if ended or time.monotonic() > ends:
                pytest.fail(f"Phoenix did not come up:\n{log.read_text()[-4_000:]}")
            time.sleep(0.2)
