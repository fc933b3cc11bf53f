"""A static check of otel-collector.yaml: what is used is defined, and nothing accepted can be lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_proxy.telemetry.pace import OutboxLimits

FILE = Path(__file__).parents[2] / "otel-collector.yaml"
TEXT = FILE.read_text()
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)
PIPELINES: dict[str, dict[str, list[str]]] = CONFIG["service"]["pipelines"]
FULL, SAMPLED = "otlp_http/full", "otlp_http/sampled"
EXPORTERS: dict[str, dict[str, Any]] = {name: CONFIG["exporters"][name] for name in (FULL, SAMPLED)}

IN_CONTRIB = {
    "receivers": {"otlp"},
    "processors": {"memory_limiter", "transform", "probabilistic_sampler", "batch"},
    "exporters": {"otlp_http", "nop"},
    "connectors": {"forward"},
    "extensions": {"file_storage", "health_check"},
}
"""Component types of otelcol-contrib v0.159 that the file may use."""


@pytest.mark.parametrize("kind", IN_CONTRIB)
def test_every_component_exists_is_defined_and_is_used(kind: str) -> None:
    defined = set(CONFIG[kind])
    assert {name.split("/")[0] for name in defined} <= IN_CONTRIB[kind]
    used = {name for pipeline in PIPELINES.values() for side in pipeline.values() for name in side}
    chosen = {default for name in used for default in re.findall(r":-([^}]+)\}", name)}
    used |= chosen | set(CONFIG["service"]["extensions"]) | {SAMPLED}
    assert defined <= used


@pytest.mark.parametrize(
    ("signal", "exporters"),
    [
        ("traces", [FULL, "forward/sampled"]),
        ("metrics", [f"${{env:OTELCOL_METRICS_TO:-{FULL}}}"]),
        ("logs", [f"${{env:OTELCOL_LOGS_TO:-{FULL}}}"]),
    ],
)
def test_each_signal_is_guarded_first_and_goes_through_the_disk(signal: str, exporters: list[str]) -> None:
    pipeline = PIPELINES[signal]
    assert pipeline["receivers"] == ["otlp"]
    assert pipeline["processors"] == ["memory_limiter"], "batch would answer for data that is only in memory"
    assert pipeline["exporters"] == exporters


def test_the_sampled_copy_is_apart_and_off_until_named() -> None:
    pipeline = PIPELINES["traces/sampled"]
    assert pipeline["receivers"] == ["forward/sampled"]
    assert pipeline["processors"] == ["transform/keep", "probabilistic_sampler", "batch/sampled"]
    assert pipeline["exporters"] == ["${env:OTELCOL_SAMPLED_TO:-nop}"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_queue_is_on_disk_and_synced(exporter: str) -> None:
    queue = EXPORTERS[exporter]["sending_queue"]
    assert queue["enabled"] is True
    assert queue["storage"] in CONFIG["service"]["extensions"]
    storage = CONFIG["extensions"][queue["storage"]]
    assert storage["fsync"] is True
    assert storage["create_directory"] is True
    assert queue["sizer"] == "bytes"
    assert queue["batch"]["sizer"] == "bytes"
    assert 0 < queue["batch"]["min_size"] <= queue["batch"]["max_size"] < 4 * 2**20 < queue["queue_size"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_it_retries_for_ever(exporter: str) -> None:
    assert EXPORTERS[exporter]["retry_on_failure"]["enabled"] is True
    assert EXPORTERS[exporter]["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_what_the_proxy_sends_is_never_too_large() -> None:
    protocols = CONFIG["receivers"]["otlp"]["protocols"]
    limits = OutboxLimits()
    assert protocols["grpc"]["max_recv_msg_size_mib"] * 2**20 > 2 * limits.request_bytes
    assert protocols["http"]["max_request_body_size"] > 2 * limits.request_bytes
    assert protocols["grpc"]["endpoint"].endswith(":4317")
    assert protocols["http"]["endpoint"].endswith(":4318")


def test_it_listens_on_this_machine_alone_unless_told_and_only_the_backend_must_be_named() -> None:
    named = re.findall(r"\$\{env:(\w+)(:-[^}]*)?\}", TEXT)
    headers = {"OTLP_HEADERS", "OTLP_SAMPLED_HEADERS"}
    assert {name for name, default in named if not default} == {"OTLP_BACKEND", *headers}
    hosts = {default for name, default in named if name == "OTELCOL_HOST"}
    assert hosts == {":-127.0.0.1"}


def test_every_component_says_why_it_is_there() -> None:
    lines = TEXT.splitlines()
    for kind in IN_CONTRIB:
        for name in CONFIG[kind]:
            at = lines.index(f"  {name}:", lines.index(f"{kind}:"))
            explained = lines[at - 1].lstrip().startswith("#") or lines[at + 1].lstrip().startswith("#")
            assert explained, f"{kind}.{name} has no comment"
