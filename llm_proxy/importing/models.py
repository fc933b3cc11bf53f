"""From deployments to models: those of one name together, in the order and by the shares that LiteLLM has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_proxy.config.choices import StrategyName
from llm_proxy.importing.catalogue import Catalogue
from llm_proxy.importing.deployments import Deployment
from llm_proxy.importing.drafts import ModelDraft, TargetDraft
from llm_proxy.importing.names import is_plain
from llm_proxy.importing.overrides import with_overrides
from llm_proxy.importing.prices import PriceTable
from llm_proxy.importing.report import Notes
from llm_proxy.importing.routing import Routing
from llm_proxy.importing.targets import Place, TargetMaker
from llm_proxy.importing.weights import weights
from llm_proxy.importing.wildcards import asked_for, passes_on, segments, sent_for
from llm_proxy.yamlpos import dotted


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names that the rest of the source speaks of. `alone` need a model of their own; `all` may be served."""

    alone: tuple[str, ...]
    all: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """The deployments of one model_name, in the order in which they are tried."""

    name: str
    deployments: tuple[Deployment, ...]
    strategy: StrategyName | None


class ModelMaker:
    """Makes the models of one file, and speaks of the deployments that they are made from."""

    def __init__(
        self,
        routing: Routing,
        catalogue: Catalogue,
        notes: Notes,
        targets: TargetMaker,
        prices: PriceTable,
    ) -> None:
        self._routing = routing
        self._catalogue = catalogue
        self._notes = notes
        self._targets = targets
        self._prices = prices

    def make(self, deployments: Iterable[Deployment], wanted: Wanted) -> list[ModelDraft]:
        """Plain names as in the file, then wildcards, the longest first: it is the one that LiteLLM takes."""
        groups: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            groups.setdefault(deployment.name, []).append(deployment)
        ready = [self._group(name, found) for name, found in groups.items()]
        models = {g.name: self._model(g, g.name) for g in ready if "*" not in g.name}
        for group in sorted((g for g in ready if "*" in g.name), key=lambda g: -len(g.name)):
            for name in self._names(group, wanted, groups):
                if name not in models:
                    models[name] = self._model(group, name)
        return list(models.values())

    def _group(self, name: str, deployments: Sequence[Deployment]) -> _Group:
        orders = [_order(deployment) for deployment in deployments]
        ordered = len(set(orders)) > 1
        strategy = StrategyName.ORDERED if ordered else self._routing.strategy
        first = sorted(range(len(orders)), key=lambda n: orders[n])
        for deployment in deployments:
            self._tell_order(deployment, name, ordered=ordered, shared=orders.count(_order(deployment)) > 1)
        found = tuple(deployments[n] for n in first)
        return _Group(name, found, strategy if len(deployments) > 1 else None)

    def _tell_order(self, deployment: Deployment, name: str, *, ordered: bool, shared: bool) -> None:
        for field in (deployment.param("order"), deployment.info.get("order")):
            if field is None:
                continue
            if field.number is None:
                self._notes.unsupported(field, "is no number")
            elif ordered and shared:
                note = "targets of the same order are tried one after the other, there by the strategy"
                self._notes.approximate(field, f"models.{name}.strategy = ordered", note)
            else:
                self._notes.exact(field, f"models.{name}.strategy = ordered" if ordered else "")

    def _names(self, group: _Group, wanted: Wanted, groups: Iterable[str]) -> Iterator[str]:
        """The names under which the deployments of a wildcard are written."""
        taken = set(groups) - {group.name}
        known = [d for d in group.deployments if not passes_on(group.name, d.model)]
        if not known:
            yield group.name
            yield from (name for name in wanted.alone if name not in taken and _leads(group.name, name))
            return
        mentioned = [name for name in wanted.all if _leads(group.name, name)]
        served = (
            asked
            for d in known
            for asked in asked_for(group.name, d.model, self._catalogue.models_of(d.provider))
        )
        names = [name for name in dict.fromkeys([*mentioned, *served]) if name not in taken]
        self._tell_wildcard(group, len(names))
        yield from names

    def _tell_wildcard(self, group: _Group, count: int) -> None:
        for deployment in group.deployments:
            fields = (deployment.entry.at("model_name"), deployment.params.at("model"))
            if not count:
                why = "leads to names that LiteLLM's table doesn't know: add a model for each by hand"
                self._notes.unsupported(deployment.entry, f"the deployment is left out: {why}")
            for field in fields:
                note = f"a wildcard can't take off a prefix here: written out for {count} known models"
                self._notes.approximate(field, f"models.{group.name}", note)

    def _model(self, group: _Group, name: str) -> ModelDraft:
        shares = weights(group.deployments, group.strategy, f"models.{group.name}", self._notes)
        targets: list[TargetDraft] = []
        for deployment, weight in zip(group.deployments, shares, strict=True):
            sent = self._sent(group, deployment, name)
            if sent is not None:
                targets.append(self._target(group, deployment, name, sent, targets, weight))
        routing = self._routing
        draft = ModelDraft(
            name=name,
            targets=tuple(targets),
            strategy=group.strategy if len(targets) > 1 else None,
            affinity_off=len(targets) > 1 and not routing.affinity,
            compact=any(not passes_on(group.name, d.model) for d in group.deployments),
            origin=tuple(dotted(d.entry.path) for d in group.deployments),
        )
        return with_overrides(draft, group.deployments, f"models.{group.name}", routing, self._notes)

    def _sent(self, group: _Group, deployment: Deployment, name: str) -> str | None:
        if name == group.name:
            return "*" if "*" in deployment.model else deployment.model
        return sent_for(group.name, deployment.model, name)

    def _target(
        self,
        group: _Group,
        deployment: Deployment,
        name: str,
        sent: str,
        before: Sequence[TargetDraft],
        weight: float | None,
    ) -> TargetDraft:
        number = 1 + sum(target.provider == deployment.provider for target in before)
        place = Place(f"models.{group.name}.targets[{len(before)}]", name, sent, number)
        self._price(deployment, sent)
        return self._targets.make(deployment, place, weight)

    def _price(self, deployment: Deployment, sent: str) -> None:
        name = None if "*" in deployment.name or "*" in sent else f"{deployment.provider}/{sent}"
        base = deployment.info.at("base_model").text
        known = (base,) if base else (f"{deployment.provider}/{sent}", sent)
        self._prices.take(deployment.entry, name, self._catalogue.price_of(known))


def with_aliases(
    models: Sequence[ModelDraft], aliases: Mapping[str, str], targets: TargetMaker
) -> list[ModelDraft]:
    """The models, and a copy of a model for each alias. What the aliases lead to must be models."""
    found = {model.name: model for model in models}
    for alias, name in aliases.items():
        copied = tuple(replace(t, id=targets.copy(t, alias)) for t in found[name].targets)
        found[alias] = replace(found[name], name=alias, targets=copied, compact=False)
    return list(found.values())


def _leads(pattern: str, name: str) -> bool:
    """Whether a model of this name can be written for the wildcard `pattern`."""
    return "*" not in name and is_plain(name) and segments(pattern, name) is not None


def _order(deployment: Deployment) -> float:
    fields = (deployment.param("order"), deployment.info.get("order"))
    return next((f.number for f in fields if f is not None and f.number is not None), math.inf)
