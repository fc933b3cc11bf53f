"""From one deployment to one target: its key, its limits, and what of it can't be said."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.config.providers import NATIVE
from llm_proxy.importing.deployments import Deployment
from llm_proxy.importing.drafts import TargetDraft
from llm_proxy.importing.names import Ids, Secrets, valid, variable_of
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field

_OWN_KEY = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_LIMITS = {"rpm": 10**9, "tpm": 10**12, "max_parallel_requests": 10**6}
_BECAME = {"max_parallel_requests": "concurrency"}
_ENVIRONMENT = {
    "api_version": "AZURE_API_VERSION",
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_region_name": "AWS_REGION_NAME",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "vertex_credentials": "VERTEXAI_CREDENTIALS",
    "vertex_location": "VERTEXAI_LOCATION",
    "vertex_project": "VERTEXAI_PROJECT",
}
"""What the litellm package also takes from the environment, and then for every target of the provider."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which target a deployment becomes. `label` is where: `models.gpt-4o.targets[0]`."""

    label: str
    model: str
    """As asked for by agents, or as a wildcard of theirs."""
    sent: str
    number: int
    """From 1, among those of the same provider."""


class TargetMaker:
    """Makes the targets of one file."""

    def __init__(self, notes: Notes, *, hard_limits: bool, concurrency: int | None) -> None:
        """`hard_limits`: LiteLLM too sends no more than `rpm`. `concurrency` is where none is given."""
        self._notes = notes
        self._hard_limits = hard_limits
        self._concurrency = concurrency
        self._secrets = Secrets()
        self._ids = Ids()
        self._environment: dict[str, Field] = {}

    def make(self, deployment: Deployment, place: Place, weight: float | None) -> TargetDraft:
        """Speaks of every field of the deployment that concerns the target alone."""
        api_key = self._api_key(deployment, place)
        self._names(deployment, place, added_key=api_key[1])
        self._env(deployment)
        return TargetDraft(
            id=self._id(deployment, place),
            provider=deployment.provider,
            model=place.sent,
            base_url=deployment.base_url,
            api_key=api_key[0],
            dialects=deployment.dialects,
            rpm=self._limit(deployment, place, "rpm"),
            tpm=self._limit(deployment, place, "tpm"),
            concurrency=self._limit(deployment, place, "max_parallel_requests") or self._concurrency,
            weight=weight,
        )

    def copy(self, target: TargetDraft, model: str) -> str:
        """An id for the same target under another model's name."""
        return self._ids.take(f"{model}/{target.provider}-1")

    def _names(self, deployment: Deployment, place: Place, added_key: str) -> None:
        params, notes = deployment.params, self._notes
        notes.exact(deployment.entry.at("model_name"), f"models.{place.model}")
        became = f"{place.label}.provider, {place.label}.model"
        if deployment.dialects:
            became = f"{became}, {place.label}.dialects"
            notes.approximate(params.at("model"), became, "responses/ is a dialect here")
        else:
            notes.exact(params.at("model"), became, added_key)
        notes.exact(params.at("custom_llm_provider"), f"{place.label}.provider")
        for section in (params, deployment.credential.at("credential_values")):
            for key in ("api_base", "base_url"):
                notes.exact(section.at(key), f"{place.label}.base_url")

    def _api_key(self, deployment: Deployment, place: Place) -> tuple[str | None, str]:
        """The reference to write, and what is to tell where the source has none."""
        sections = (deployment.params, deployment.credential.at("credential_values"))
        field = next((key for section in sections if (key := section.get("api_key")) and not key.empty), None)
        if field is not None and field.text is not None:
            reference, note = self._secrets.reference(field)
            became = f"{place.label}.api_key"
            if note:
                self._notes.approximate(field, f"{became} = {reference}", note)
            else:
                self._notes.exact(field, became)
            return reference, ""
        if deployment.provider not in NATIVE or deployment.base_url is not None:
            return None, ""
        variable = _OWN_KEY[deployment.provider]
        return f"${{{variable}}}", f"its key comes from {variable}, as there"

    def _env(self, deployment: Deployment) -> None:
        for section in (deployment.params, deployment.credential.at("credential_values")):
            for key, variable in _ENVIRONMENT.items():
                field = section.get(key)
                if field is not None and deployment.provider not in NATIVE:
                    self._from_environment(field, variable)

    def _from_environment(self, field: Field, variable: str) -> None:
        if field.text is None:
            self._notes.unsupported(field, f"is no text: set {variable} where the proxy runs")
        elif self._environment.setdefault(variable, field).value != field.value:
            note = f"{variable} holds one value for all targets, and another deployment's stands there"
            self._notes.unsupported(field, note)
        elif variable_of(field.text) == variable:
            self._notes.exact(field, f"environment: {variable}")
        else:
            note = f"set {variable} to it where the proxy runs; it holds for all targets of the provider"
            self._notes.approximate(field, f"environment: {variable}", note)

    def _id(self, deployment: Deployment, place: Place) -> str:
        given = deployment.info.get("id")
        wanted = str(given.value) if given is not None and not isinstance(given.value, list | dict) else ""
        if given is not None and "*" in deployment.name:
            note = "the targets of a wildcard have ids of their own"
            self._notes.approximate(given, f"{place.label}.id", note)
        if given is None or "*" in deployment.name or not wanted:
            return self._ids.take(f"{place.model}/{deployment.provider}-{place.number}")
        taken = self._ids.take(wanted)
        if taken == wanted == valid(wanted):
            self._notes.exact(given, f"{place.label}.id")
        else:
            self._notes.approximate(given, f"{place.label}.id", "ids are letters, digits and ._:@/+-")
        return taken

    def _limit(self, deployment: Deployment, place: Place, key: str) -> int | None:
        """From wherever LiteLLM looks: `litellm_params`, else the entry itself, else `model_info`."""
        sections = (deployment.params, deployment.entry, deployment.info)
        found = [field for section in sections if (field := section.get(key)) is not None]
        if not found:
            return None
        for field in found[1:]:
            self._notes.unsupported(field, "is given twice for the deployment: litellm_params is taken")
        limit = found[0].whole(1, _LIMITS[key])
        became = f"{place.label}.{_BECAME.get(key, key)}"
        if limit is None:
            self._notes.unsupported(found[0], f"is no whole number from 1 to {_LIMITS[key]}")
        elif key == "max_parallel_requests" or self._hard_limits:
            self._notes.exact(found[0], became)
        else:
            note = "here no more is sent; there it is a share of the traffic, or a hint"
            self._notes.approximate(found[0], became, note)
        return limit
