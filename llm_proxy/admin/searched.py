"""What a search found, as the command line and `/admin` show it."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.archive.search import Hits, SearchWish, search
from llm_proxy.archive.search_query import BadSearch
from llm_proxy.records.times import iso


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was found. `marks` are slices of `snippet`, in characters."""

    call_id: str
    run_id: str
    agent_id: str
    at_us: int
    """When the call began."""
    at: str
    kind: str
    """prompt, reply, reasoning, tool_call or tool_result."""
    tool: str
    snippet: str | None
    """The words around the first hit; null where the text is no longer kept."""
    marks: tuple[tuple[int, int], ...]


class SearchShown(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first. Texts are found once they're indexed, which is soon after their call ended."""

    hits: tuple[SearchHit, ...]
    before: int | None
    """Where to go on with `before`; null where that is all."""
    complete: bool
    """False where time ran out: everything since `back_to` was looked at."""
    back_to: str | None
    unindexed: int
    """Records that the index has not passed yet; what they hold is not found."""
    unindexed_since_us: int | None
    unindexed_since: str | None
    """When the oldest of them was made."""


def searched(connection: Connection, wish: SearchWish) -> tuple[SearchShown, list[str]]:
    """What is shown, and the ids of the calls whose content is in it. Raises `Unclear`."""
    try:
        found = search(connection, wish)
    except BadSearch as error:
        raise Unclear(str(error)) from None
    calls = [hit.row.call_id for hit in found.hits if hit.snippet is not None]
    return _shown(found), list(dict.fromkeys(calls))


def parts(within: str) -> tuple[str, ...]:
    """Where to look, as people write it: names, by commas."""
    return tuple(filter(None, map(str.strip, within.split(","))))


def no_records() -> SearchShown:
    return SearchShown(
        hits=(),
        before=None,
        complete=True,
        back_to=None,
        unindexed=0,
        unindexed_since_us=None,
        unindexed_since=None,
    )


def _shown(found: Hits) -> SearchShown:
    return SearchShown(
        hits=tuple(
            SearchHit(
                call_id=hit.row.call_id,
                run_id=hit.row.run_id,
                agent_id=hit.row.agent_id,
                at_us=hit.row.at_us,
                at=iso(hit.row.at_us),
                kind=hit.row.kind,
                tool=hit.row.tool,
                snippet=hit.snippet.text if hit.snippet else None,
                marks=hit.snippet.marks if hit.snippet else (),
            )
            for hit in found.hits
        ),
        before=found.before,
        complete=found.back_to_us is None,
        back_to=maybe_iso(found.back_to_us),
        unindexed=found.behind.records,
        unindexed_since_us=found.behind.oldest_us,
        unindexed_since=maybe_iso(found.behind.oldest_us),
    )
