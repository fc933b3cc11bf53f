"""Measures how fast authority is cut: a test agent is frozen in the middle of a reply."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from llm_proxy.admin.agents import Reason
from llm_proxy.admin.keys import KeyWish
from llm_proxy.cli.change import TOKEN, address
from llm_proxy.cli.output import complain, stop
from llm_proxy.cli.remote import NotRunning, Remote, RemoteRefusal, Unreachable
from llm_proxy.config import Config
from llm_proxy.posture.facts import Cut
from llm_proxy.records.ids import now_us

_PROMPT = "Count from 1 to 500, one number a line."
_WHY = "measured by llm-proxy posture --live"
_KEY_TTL = "5m"
_TIMEOUT_S = 30.0
_PIECE = 65_536


def measure(config: Config, url: str | None, agent: str, model: str | None) -> Cut:
    """Ends the command where it can't be measured. The agent is thawed again, and the key revoked."""
    token = os.environ.get(TOKEN, "")
    if not token:
        stop(f"Set ${TOKEN}: --live freezes an agent, which takes role admin.")
    at = url or address(config)
    asked = model or next((name for name in _models(config, agent) if "*" not in name), None)
    if asked is None:
        stop(f"Name the model that agent {agent!r} asks, with --model.")
    try:
        remote = Remote(at, token)
        remote.find()
        key = remote.issue(KeyWish(agent_id=agent, ttl=_KEY_TTL))
        try:
            return _measured(remote, at, key.key, agent, asked)
        finally:
            _tried(
                lambda: remote.revoke(key.id), f"key {key.id} could not be revoked: it ends within {_KEY_TTL}"
            )
    except (NotRunning, Unreachable, RemoteRefusal) as error:
        stop(f"It can't be measured: {error}")
    except (OSError, HTTPException) as error:
        stop(f"It can't be measured: {at}: {error or type(error).__name__}")


def _measured(remote: Remote, at: str, key: str, agent: str, model: str) -> Cut:
    connection, reply = _opened(at, key, model)
    try:
        came = reply.read1(_PIECE)
        if reply.status != 200 or not came:
            said = came[:300].decode(errors="replace")
            stop(f"It can't be measured: model {model!r} answered {reply.status}: {said}")
        started, at_us = time.monotonic(), now_us()
        standing = remote.freeze(agent, Reason(reason=_WHY))
        try:
            while piece := reply.read1(_PIECE):
                came += piece
            seconds = time.monotonic() - started
        finally:
            if standing.changed:
                left = f"agent {agent} could not be thawed: llm-proxy agents thaw {agent}"
                _tried(lambda: remote.thaw(agent, Reason(reason=_WHY)), left)
    finally:
        connection.close()
    if b"agent_frozen" not in came:
        stop(
            f"It can't be measured: the reply of model {model!r} was over before the freeze. Ask one with "
            "--model that goes on for some seconds, such as a scripted one with `delta_s`."
        )
    return Cut(agent_id=agent, at_us=at_us, streams=1, seconds=seconds, live=True)


def _opened(at: str, key: str, model: str) -> tuple[HTTPConnection, HTTPResponse]:
    parts = urlsplit(at)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": _PROMPT}]}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        path = f"{parts.path.rstrip('/')}/v1/chat/completions"
        connection.request("POST", path, json.dumps(body).encode(), headers)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def _models(config: Config, agent: str) -> tuple[str, ...]:
    known = config.agents.get(agent)
    return known.models if known is not None else ()


def _tried(act: Callable[[], object], otherwise: str) -> None:
    """What tidies up must not hide what went wrong before."""
    try:
        act()
    except (NotRunning, Unreachable, RemoteRefusal) as error:
        complain(f"{otherwise} ({error})")
