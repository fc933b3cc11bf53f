"""LiteLLM's virtual keys, as its `/key/list` or `/key/info` answers, to agents and budgets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from llm_proxy.importing.drafts import AgentDraft, BudgetDraft
from llm_proxy.importing.names import Ids, literal
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field
from llm_proxy.importing.spans import limit_of
from llm_proxy.yamlpos import Document, DocumentErrors, Issue, Yaml

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EVERY = frozenset({"*", "all-proxy-models"})
_ASK = "write what GET /key/list?return_full_object=true&size=100 answers into it"


@dataclass(frozen=True, slots=True)
class Imported:
    agents: tuple[AgentDraft, ...]
    budgets: tuple[BudgetDraft, ...]


def read_keys(text: str, file: str) -> Document:
    """The answer with one list, `keys`, whatever its form was; no positions. Raises DocumentErrors."""
    try:
        answer = cast("Yaml", json.loads(text))
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg}: {_ASK}"
        raise DocumentErrors([Issue(file, error.lineno, error.colno, "", message)]) from error
    except RecursionError as error:
        raise DocumentErrors([Issue(file, 1, 1, "", f"is nested too deep: {_ASK}")]) from error
    return Document(file, _listed(answer, file))


def _listed(answer: Yaml, file: str) -> Yaml:
    keys: list[Yaml]
    rest: dict[str, Yaml] = {}
    match answer:
        case {"key": key, "info": dict(info)}:
            keys = [_with_token(key, info)]
        case {"info": list(infos)}:
            keys = infos
        case {"keys": list(found)}:
            keys, rest = found, answer
        case list(found):
            keys = found
        case {"token": _}:
            keys = [answer]
        case _:
            raise DocumentErrors([Issue(file, 1, 1, "", f"holds no keys: {_ASK}")])
    if any(not isinstance(key, dict) for key in keys):
        raise DocumentErrors([Issue(file, 1, 1, "keys", f"has keys without what belongs to them: {_ASK}")])
    return {**rest, "keys": keys}


def _with_token(key: Yaml, info: dict[str, Yaml]) -> dict[str, Yaml]:
    """`/key/info` repeats the key it was asked for, which may be the key itself or its hash."""
    if not isinstance(key, str) or "token" in info:
        return info
    token = key if _SHA256.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()
    return {"token": token, **info}


class KeyImport:
    """Makes the agents of one file. `groups` are the models by their access group."""

    def __init__(self, notes: Notes, groups: Mapping[str, tuple[str, ...]], timezone: str) -> None:
        self._notes = notes
        self._groups = groups
        self._timezone = timezone
        self._names = Ids()
        self._budget_ids = Ids()
        self._tokens: set[str] = set()

    def make(self, root: Field) -> Imported:
        self._pages(root)
        found = [self._one(entry, n) for n, entry in enumerate(root.at("keys").items(), 1)]
        return Imported(
            tuple(agent for agent, _ in found), tuple(budget for _, budgets in found for budget in budgets)
        )

    def _pages(self, root: Field) -> None:
        pages = root.get("total_pages")
        complete = pages is None or pages.whole(0, 1) is not None
        for key, field in root.entries():
            if key == "keys":
                continue
            if complete:
                self._notes.exact(field, note="is about the answer, not about keys")
            else:
                self._notes.unsupported(
                    field, "the other pages are not in this file: put all keys into one list"
                )

    def _one(self, entry: Field, number: int) -> tuple[AgentDraft, list[BudgetDraft]]:
        name = self._name(entry, number)
        usable = self._usable(entry)
        agent = AgentDraft(
            name=name,
            keys=tuple(self._key(entry, name, usable=usable)),
            models=tuple(dict.fromkeys(self._models(entry, name))) if usable else (),
            owner=self._text(entry, ("user_email", "user_id"), f"agents.{name}.owner"),
            team=self._text(entry, ("team_alias", "team_id"), f"agents.{name}.team"),
        )
        return agent, [*self._money(entry, name), *self._rates(entry, name)]

    def _name(self, entry: Field, number: int) -> str:
        field = entry.at("key_alias")
        name = self._names.take(field.text or f"key-{number}")
        if field.text == name:
            self._notes.exact(field, f"agents.{name}")
        else:
            self._notes.approximate(
                field, f"agents.{name}", "names are unique, of letters, digits and ._:@/+-"
            )
        return name

    def _usable(self, entry: Field) -> bool:
        blocked = entry.get("blocked")
        if blocked is None or not blocked.switch:
            return True
        self._notes.approximate(blocked, "agents", "the agent has no key and no model")
        return False

    def _key(self, entry: Field, name: str, *, usable: bool) -> Iterator[str]:
        """A key that ends is left out: one in the config would be good for ever."""
        token, expires = entry.at("token"), entry.get("expires")
        if expires is not None:
            self._notes.unsupported(
                expires, "keys in the config don't end: `llm-proxy keys issue --ttl` makes one"
            )
            self._notes.unsupported(token, "is left out, because it expires")
        elif not usable:
            self._notes.unsupported(token, "is left out, because it is blocked")
        elif token.text is None or not _SHA256.fullmatch(token.text):
            self._notes.unsupported(token, "is no SHA-256 of a key in hex")
        elif token.text.lower() in self._tokens:
            self._notes.unsupported(token, "is another agent's already")
        else:
            self._tokens.add(token.text.lower())
            self._notes.exact(token, f"agents.{name}.keys[0]")
            yield f"sha256:{token.text.lower()}"

    def _models(self, entry: Field, name: str) -> Iterator[str]:
        """No list is every model, as there."""
        listed, became = entry.at("models"), f"agents.{name}.models"
        if listed.empty:
            self._notes.exact(listed, f'{became} = "*"', "no list is every model there")
            yield "*"
        for item in listed.items():
            group = self._groups.get(item.text or "")
            if group is not None:
                self._notes.approximate(item, became, "is an access group: its models are listed")
                yield from map(literal, group)
            elif item.text in _EVERY:
                self._notes.exact(item, f'{became} = "*"')
                yield "*"
            elif item.text == "no-default-models":
                self._notes.exact(item, became, "is no model")
            elif item.text is None or item.text == "all-team-models":
                self._notes.unsupported(item, "the team's models are not in this file: list them")
            else:
                self._notes.exact(item, became)
                yield literal(item.text)

    def _text(self, entry: Field, keys: tuple[str, ...], became: str) -> str:
        """The first of `keys` that there is."""
        found = [field for key in keys if (field := entry.at(key)).text]
        for field in found[1:]:
            self._notes.exact(field, note=f"{became} is said by {keys[0]}")
        if not found:
            return ""
        self._notes.exact(found[0], became)
        return literal(found[0].text or "")

    def _money(self, entry: Field, name: str) -> Iterator[BudgetDraft]:
        spend = entry.at("spend")
        windows = [(_limit(entry, "max_budget"), _limit(entry, "budget_duration"))]
        windows += [
            (item.get("max_budget"), item.get("budget_duration"))
            for item in entry.at("budget_limits").items()
        ]
        for money, duration in windows:
            if money is None:
                continue
            id_ = self._budget_ids.take(f"{name}-budget")
            spent = Decimal(str(max(spend.number or 0, 0)))
            limit = limit_of(money, duration, f"budgets.{id_}", self._notes, spent)
            if limit is not None:
                if limit.window == "lifetime" and spent:
                    self._notes.exact(spend, f"budgets.{id_}.usd", "is taken off")
                yield BudgetDraft(id_, limit.window, name, usd=limit.usd, timezone=self._timezone)

    def _rates(self, entry: Field, name: str) -> Iterator[BudgetDraft]:
        for window, keys in (("minute", ("tpm_limit", "rpm_limit")), ("day", ("tpd_limit", ""))):
            tokens, requests = (_limit(entry, key) for key in keys)
            id_ = self._budget_ids.take(f"{name}-{window}")
            most_tokens = self._most(tokens, f"budgets.{id_}.tokens", window)
            most_requests = self._most(requests, f"budgets.{id_}.requests", window)
            if most_tokens is not None or most_requests is not None:
                yield BudgetDraft(id_, window, name, tokens=most_tokens, requests=most_requests)

    def _most(self, field: Field | None, became: str, window: str) -> int | None:
        if field is None:
            return None
        most = field.whole(0, 2**62)
        if most is None:
            self._notes.unsupported(field, "is no whole number from 0 on")
        else:
            note = f"a {window} of the clock; there one that begins with a call"
            self._notes.approximate(field, became, note)
        return most


def _limit(entry: Field, key: str) -> Field | None:
    """The key's own, else that of the budget it was given."""
    return (entry.get(key) or entry.at("litellm_budget_table").get(key)) if key else None
