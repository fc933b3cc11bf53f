"""What deployments say of tries, times and cooldowns: here it is said once, for their model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from llm_proxy.importing import routing as wide
from llm_proxy.importing.deployments import Deployment
from llm_proxy.importing.drafts import ModelDraft
from llm_proxy.importing.report import Notes
from llm_proxy.importing.routing import Routing
from llm_proxy.importing.source import Field

_TOTAL_S = 600
"""What a call has where the config says nothing."""


def with_overrides(
    draft: ModelDraft, deployments: Sequence[Deployment], label: str, routing: Routing, notes: Notes
) -> ModelDraft:
    """The largest value that a deployment has, else that of all models. Speaks of the deployments' fields."""
    alone = len(deployments) == 1

    def largest(keys: Sequence[str], read: Callable[[Field], float | None]) -> float | None:
        found = [read(field) for d in deployments for field in _fields(d, keys)]
        return max((value for value in found if value is not None), default=None)

    tries = largest(("num_retries", "max_retries"), lambda f: wide.retries(f, label, notes, alone=alone))
    fails = largest(("allowed_fails",), lambda f: wide.failures(f, label, notes))
    cool = largest(("cooldown_time",), lambda f: wide.cool_down(f, label, notes))
    whole = largest(("timeout", "request_timeout"), lambda f: wide.seconds(f, label, "first_event_s", notes))
    streamed = largest(("stream_timeout",), lambda f: wide.seconds(f, label, "idle_s", notes))
    return _timed(
        replace(
            draft,
            retries=int(tries) if tries is not None else routing.retries,
            failures=int(fails) if fails is not None else routing.failures,
            cool_down_s=cool if cool is not None else routing.cool_down_s,
        ),
        whole if whole is not None else routing.timeout_s,
        streamed if streamed is not None else routing.stream_timeout_s,
    )


def _timed(draft: ModelDraft, whole_s: float | None, stream_s: float | None) -> ModelDraft:
    first = whole_s if whole_s is not None else stream_s
    return replace(
        draft,
        first_event_s=first,
        idle_s=stream_s if stream_s is not None else whole_s,
        total_s=first if first is not None and first > _TOTAL_S else None,
    )


def _fields(deployment: Deployment, keys: Sequence[str]) -> list[Field]:
    """Cooldowns may stand in `model_info` too."""
    sections = (deployment.params, deployment.info)
    return [field for section in sections for key in keys if (field := section.get(key)) is not None]
