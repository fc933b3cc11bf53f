"""What is kept of it, and how authority ends: logging, reconstruction, freezes, durability, export. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from llm_proxy.config.choices import Content, Durability
from llm_proxy.posture.answers import Answer, Check, Found, Note, answered, not_applicable, share
from llm_proxy.posture.facts import Facts
from llm_proxy.records.times import iso

SOON_S = 2.0
"""Within so long an agent's authority has to be gone."""
LAG_S = 300.0
"""So old may be what waits for export."""
CHECKPOINT_S = 3_600.0
"""So old may the newest checkpoint be while records are unsigned."""
_NOTHING = "no tool call is recorded in the last {} days"


def logging(facts: Facts) -> Answer:
    id_, question = "logging", "Is every tool call logged with its inputs, outputs, policy and side effects?"
    counted = facts.records.tools if facts.records else None
    if counted is None or not counted.total:
        return not_applicable(id_, question, _NOTHING.format(facts.days))
    return answered(id_, question, _logging(facts))


def _logging(facts: Facts) -> Iterator[Found]:
    assert facts.records is not None
    counted = facts.records.tools
    yield Note(
        f"{counted.total:,} tool calls proposed in the last {facts.days} days, {counted.released:,} released"
    )
    yield Check(
        counted.digests == counted.total,
        f"inputs: {share(counted.digests, counted.total)} with the digest of the exact action",
        "A call without a digest had arguments that nothing could read; its rule says so.",
    )
    if counted.verdicts:
        yield Check(
            counted.inputs == counted.verdicts,
            f"inputs: the arguments of {share(counted.inputs, counted.verdicts)} can be read",
            "records.content: full keeps arguments; retention deletes them after records.retention_days.",
        )
        yield Check(
            counted.judged == counted.verdicts,
            f"policy: {share(counted.judged, counted.verdicts)} name the policy that judged, by its hash",
            "Name a policy file in the config: calls without one are recorded and not judged.",
        )
    yield Check(
        counted.results == counted.answered,
        f"outputs: {share(counted.results, counted.answered)} answered calls with the digest of the result",
        "Results without a digest came in a form that could not be read.",
    )
    if counted.released > counted.answered:
        yield Note(f"outputs: {counted.released - counted.answered:,} released calls were never answered")
    if counted.changes:
        yield Check(
            counted.effects == counted.changes,
            f"side effects: reported for {share(counted.effects, counted.changes)} calls that change things",
            "Have tools report what they changed: POST /v1/runs/{id}/effects with the tool_call_id.",
        )
    yield Note(f"content is kept as {facts.config.records.content.value}")


def reconstruction(facts: Facts) -> Answer:
    id_, question = "reconstruction", "Can a given run be reconstructed?"
    rebuilt = facts.rebuilt
    if rebuilt is None:
        return not_applicable(id_, question, "no ended run is recorded that could be tried")
    return answered(id_, question, _reconstruction(facts))


def _reconstruction(facts: Facts) -> Iterator[Found]:
    rebuilt = facts.rebuilt
    assert rebuilt is not None
    yield Note(f"tried with run {rebuilt.run_id} of agent {rebuilt.agent_id}: {rebuilt.calls:,} calls")
    whole = not rebuilt.problems
    yield Check(
        whole,
        f"{rebuilt.requests:,} requests and {rebuilt.replies:,} replies rebuilt ({rebuilt.bytes:,} bytes), "
        f"{rebuilt.rows:,} records verified in their chain"
        if whole
        else "; ".join(rebuilt.problems[:5]),
        "Run `llm-proxy audit verify` for all that is not as it was written; see records.retention_days and "
        "records.content for what is kept.",
    )
    if rebuilt.masked:
        yield Note(
            f"{rebuilt.masked:,} of the calls hold masked secrets: those bytes are not as they went by"
        )


def authority(facts: Facts) -> Answer:
    return answered("authority", "How fast can authority be cut?", _authority(facts))


def _authority(facts: Facts) -> Iterator[Found]:
    cut = facts.records.cut if facts.records else None
    if cut is None:
        yield Check(
            False,
            "not measured: no freeze is recorded that ended an open reply",
            "Measure it: `llm-proxy posture --live --agent TEST_AGENT`, with an agent made for that.",
        )
        return
    how = "measured now" if cut.live else f"the freeze at {iso(cut.at_us)}"
    told = (
        f"{cut.seconds:.2f} s from the freeze of agent {cut.agent_id} until its "
        f"{cut.streams} open {'reply' if cut.streams == 1 else 'replies'} had ended ({how})"
    )
    yield Check(cut.seconds <= SOON_S, told, "See docs/operators.md: the store was slow, or a worker hung.")


def durability(facts: Facts) -> Answer:
    return answered(
        "durability", "Are records durable, and is the store sound?", _durability(facts), vital=("the store",)
    )


def _durability(facts: Facts) -> Iterator[Found]:
    records = facts.config.records
    problem = facts.store_problem
    told = (
        f"the store {facts.store} can't be used: {problem}"
        if problem
        else f"store {facts.store} is reachable"
    )
    yield Check(not problem, told, "Make the store reachable; `llm-proxy db status` tells its revision.")
    strict = records.durability is Durability.STRICT
    told = f"records.durability is {records.durability.value}"
    yield Check(
        strict, told, "Set records.durability: strict: a reply is released once its record is committed."
    )
    how = "as set" if "retention_days" in records.model_fields_set else "the default"
    yield Note(f"content is kept for {records.retention_days:,} days ({how}), as {records.content.value}")
    if records.content is Content.DIGEST:
        yield Check(
            False, "records.content is digest: no prompt or reply can be read later", "Set it to full."
        )
    if facts.records and facts.records.newest_us is not None:
        yield Note(
            f"{facts.records.calls:,} calls in the last {facts.days} days, "
            f"the newest {iso(facts.records.newest_us)}"
        )


def proof(facts: Facts) -> Answer:
    id_, question = "proof", "Would tampering with the records be noticed?"
    if facts.records is None:
        return not_applicable(id_, question, "nothing is recorded yet")
    return answered(id_, question, _proof(facts))


def _proof(facts: Facts) -> Iterator[Found]:
    assert facts.records is not None
    key, signed = facts.key_file, facts.records.signed
    told = f"the signing key {key.path} " + (
        "is not there"
        if not key.exists
        else "can be read by others"
        if key.open_to_others
        else "is its owner's alone"
    )
    yield Check(
        key.exists and not key.open_to_others,
        told,
        f"Start the proxy, which makes it, or: chmod 600 {key.path}",
    )
    yield Note(f"{signed.records:,} records in their chains")
    if signed.newest_us is None:
        yield Check(False, "no checkpoint was ever signed", "Start the proxy: it signs one every minute.")
        return
    age = max(0.0, (facts.now_us - signed.newest_us) / 1e6)
    told = f"{signed.checkpoints:,} signed checkpoints, the newest {iso(signed.newest_us)}"
    if signed.unsigned:
        told += f", {signed.unsigned:,} records since"
    late = bool(signed.unsigned) and age > CHECKPOINT_S
    yield Check(not late, told, "Keep the proxy running: it signs what is new every minute.")


def export(facts: Facts) -> Answer:
    id_, question = "export", "Does what happens reach a backend outside?"
    told = facts.config.telemetry
    if told.otlp_endpoint is None:
        return not_applicable(id_, question, "telemetry.otlp_endpoint is not set: records stay in this store")
    return answered(id_, question, _export(facts))


def _export(facts: Facts) -> Iterator[Found]:
    told = facts.config.telemetry
    yield Note(f"OTLP to {told.otlp_endpoint} by {told.protocol.value}, as {told.service_name}")
    records = facts.records
    if records is None:
        return
    age = (
        0.0 if records.oldest_unsent_us is None else max(0.0, (facts.now_us - records.oldest_unsent_us) / 1e6)
    )
    said = (
        f"{records.unsent:,} records wait, the oldest for {age:,.0f} s" if records.unsent else "nothing waits"
    )
    yield Check(
        age <= LAG_S, said, "See the log for why the backend doesn't take them; nothing is lost meanwhile."
    )
    said = f"{records.dead_letters:,} spans were refused by the backend for good"
    yield Check(records.dead_letters == 0, said, "See state_dead_letters for why; the records hold them all.")


def exposure(facts: Facts) -> Answer:
    id_, question = "exposure", "Is it reached over TLS?"
    host, url = facts.config.server.host, facts.config.server.public_url
    if url is None and _loopback(host):
        return not_applicable(id_, question, f"it listens on {host}: nobody reaches it from outside")
    told = f"server.public_url is {url or 'not set'}, and it listens on {host}"
    todo = "Put a server with TLS in front, and set server.public_url to its https address."
    return answered(id_, question, [Check((url or "").startswith("https://"), told, todo)])


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
