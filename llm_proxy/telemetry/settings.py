"""What spans say of the process that sends them, and how much content they may hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from llm_proxy.telemetry.attributes import put_all

CONTENT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class SpanSettings:
    """`content_bytes` is the most that one content attribute may hold; 0 sends no content at all."""

    service_name: str = "llm-proxy"
    service_version: str = ""
    project: str = ""
    """Phoenix's project; empty takes the service's name."""
    environment: str = ""
    content_bytes: int = CONTENT_BYTES

    def without_content(self) -> SpanSettings:
        return replace(self, content_bytes=0)


def resource_of(settings: SpanSettings) -> Resource:
    resource = Resource()
    put_all(
        resource.attributes,
        {
            "service.name": settings.service_name,
            "service.version": settings.service_version,
            "deployment.environment.name": settings.environment,
            "openinference.project.name": settings.project or settings.service_name,
        },
    )
    return resource


def scope_of(settings: SpanSettings) -> InstrumentationScope:
    return InstrumentationScope(name="llm_proxy", version=settings.service_version)
