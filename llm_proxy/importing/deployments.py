"""The entries of `model_list`: who serves each, by what name, from where, and which can't be carried over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from llm_proxy.config.places import Address
from llm_proxy.config.providers import LITELLM, NATIVE
from llm_proxy.importing.catalogue import Catalogue
from llm_proxy.importing.names import ENVIRON, carried, is_plain, variable_of
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field

PROVIDERS = (NATIVE | LITELLM) - {"scripted"}
_RESPONSES = "responses/"
_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)


class _Unusable(Exception):
    """Why a deployment is left out, and the field that it is about."""

    def __init__(self, why: str, field: Field | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.field = field


@dataclass(frozen=True, slots=True)
class Deployment:
    """One entry that can be carried over. `name` and `model` may hold `*`."""

    entry: Field
    name: str
    provider: str
    model: str
    base_url: str | None
    dialects: tuple[str, ...]
    credential: Field
    """What `litellm_credential_name` refers to; may hold nothing."""

    @property
    def params(self) -> Field:
        return self.entry.at("litellm_params")

    @property
    def info(self) -> Field:
        return self.entry.at("model_info")

    def param(self, key: str) -> Field | None:
        return self.params.get(key)


def read_deployments(root: Field, catalogue: Catalogue, notes: Notes) -> tuple[Deployment, ...]:
    """Those that can be had here, in the file's order; of each of the others all fields are spoken of."""
    credentials = dict(_credentials(root.at("credential_list")))
    found: list[Deployment] = []
    for entry in root.at("model_list").items():
        try:
            found.append(_deployment(entry, credentials, catalogue, notes))
        except _Unusable as unusable:
            if unusable.field is not None:
                notes.unsupported(unusable.field, f"the deployment is left out: {unusable.why}")
            notes.unsupported(entry, f"the deployment is left out: {unusable.why}")
    return tuple(found)


def _credentials(listed: Field) -> Iterator[tuple[str, Field]]:
    for item in listed.items():
        name = item.at("credential_name").text
        if name is not None:
            yield name, item


def _deployment(
    entry: Field, credentials: dict[str, Field], catalogue: Catalogue, notes: Notes
) -> Deployment:
    name, params = entry.at("model_name").text, entry.at("litellm_params")
    model = params.at("model").text
    if name is None or not is_plain(name):
        raise _Unusable("it has no model_name that agents could ask for")
    if model is None or model.startswith(ENVIRON):
        raise _Unusable("it names no model: write litellm_params.model as provider/name")
    _check_alive(entry)
    provider, sent = _identity(model, params.at("custom_llm_provider"), catalogue, params.at("model"))
    if "*" in sent and sent.count("*") != name.count("*"):
        raise _Unusable("its model has not as many wildcards as its model_name", params.at("model"))
    dialects = ("openai_responses",) if provider == "openai" and sent.startswith(_RESPONSES) else ()
    credential = _credential(params.get("litellm_credential_name"), credentials, notes)
    return Deployment(
        entry=entry,
        name=name,
        provider=provider,
        model=sent.removeprefix(_RESPONSES) if dialects else sent,
        base_url=_base_url((params, credential.at("credential_values"))),
        dialects=dialects,
        credential=credential,
    )


def _check_alive(entry: Field) -> None:
    mocked = entry.at("litellm_params").get("mock_response")
    if mocked is not None:
        raise _Unusable("it answers by mock_response; provider scripted does that here", mocked)
    for blocked in (entry.get("blocked"), entry.at("model_info").get("blocked")):
        if blocked is not None and blocked.switch:
            raise _Unusable("it is blocked", blocked)


def _identity(model: str, custom: Field, catalogue: Catalogue, field: Field) -> tuple[str, str]:
    """(provider, model) as proxy.yaml has them apart."""
    start, slash, rest = model.partition("/")
    if custom.text is not None:
        provider = custom.text
        sent = rest if slash and start == provider else model
    elif slash and start in PROVIDERS:
        provider, sent = start, rest
    else:
        provider, sent = catalogue.provider_of(model) or start, model
    if provider not in PROVIDERS:
        advice = "for an OpenAI-compatible server, write openai/NAME and api_base"
        named = custom if custom.text is not None else field
        raise _Unusable(f"provider {provider!r} is not known here; {advice}", named)
    if not sent:
        raise _Unusable("its model has no name behind the provider", field)
    return provider, sent


def _credential(named: Field | None, credentials: dict[str, Field], notes: Notes) -> Field:
    if named is None:
        return Field(None)
    found = credentials.get(named.text or "")
    if found is None:
        raise _Unusable("its credential is not in credential_list, but in LiteLLM's database", named)
    note = "what it holds is written out at the target"
    notes.exact(named, note=note)
    for key in ("credential_name", "credential_info"):
        notes.exact(found.at(key), note=note)
    return found


def _base_url(sections: Iterable[Field]) -> str | None:
    """As written; from the environment where the source has it from there."""
    found = (section.get(key) for section in sections for key in ("api_base", "base_url"))
    field = next((url for url in found if url is not None and not url.empty), None)
    if field is None:
        return None
    if field.text is None or (field.text.startswith(ENVIRON) and variable_of(field.text) is None):
        raise _Unusable("its address can't be read", field)
    if variable_of(field.text) is None:
        _check_address(field.text, field)
    return carried(field.text)


def _check_address(url: str, field: Field) -> None:
    if "?" in url:
        raise _Unusable("its address has a query, and requests are put behind the path", field)
    try:
        _ADDRESS.validate_python(url)
    except ValidationError as error:
        why = error.errors(include_input=False, include_context=False)[0]["msg"].removeprefix("Value error, ")
        raise _Unusable(f"its address {why}", field) from error
