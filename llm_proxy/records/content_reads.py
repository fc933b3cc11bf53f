"""What is recorded when somebody is shown content: prompts, replies, reasoning or arguments.

One `content.read` stands for one showing, whatever it shows, and is committed before anything of it is
shown. Who can't be recorded sees nothing.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.runstate import RunKey

MOST_CALLS = 100
"""Ids that one record names; `call_count` tells how many calls were shown."""
MOST_WORDS = 1_000
"""Characters of a search that are kept."""


class Place(StrEnum):
    """By which door content was seen."""

    ADMIN = "admin"
    CLI = "cli"
    CONSOLE = "console"
    LINK = "link"
    """The page behind the one-time link of an approval."""


class ContentRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `content.read`."""

    by: str
    """The operator's id, `admin_token`, or `command line (OS user NAME)`."""
    place: Place
    what: str
    """What was asked for, as the command has it: `calls show`, `runs export`, `calls search`, …"""
    calls: tuple[str, ...] = ()
    """Ids of the calls that were shown, the first of them."""
    call_count: int = 0
    words: str = ""
    """Of a search: what was looked for."""
    approval: str = ""
    """The approval whose arguments were shown."""


encode = msgspec.json.Encoder().encode
read_content_read = msgspec.json.Decoder(ContentRead).decode


def read_draft(
    *,
    by: str,
    place: Place,
    what: str,
    at_us: int,
    calls: Sequence[str] = (),
    run: RunKey | None = None,
    words: str = "",
    approval: str = "",
) -> Draft:
    """The `content.read` of one showing. `run`: where all that was shown is of one run."""
    body = ContentRead(
        by=by,
        place=place,
        what=what,
        calls=tuple(calls[:MOST_CALLS]),
        call_count=len(calls),
        words=column(words, MOST_WORDS).encode("utf-8", "replace").decode(),
        approval=approval,
    )
    only = calls[0] if len(calls) == 1 else None
    run_id, agent_id = (run.run_id, run.agent_id) if run else (None, None)
    return Draft(RecordKind.CONTENT_READ, at_us, only, run_id, agent_id, encode(body))


def read_job(*drafts: Draft) -> Job:
    """Commits them; await it before the content is shown."""
    return Job(lambda _: Wrote(None, Evidence(records=drafts)))


def at_command_line() -> str:
    """Who reads, where the store is read by a command: the system's word, not that of the environment."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return f"command line (OS user {name})"
