"""Whose tokens stand for agents and users, beside the keys that the config and the store hold."""

from __future__ import annotations

from llm_proxy.config.shapes import Items, Section, Text


class ClaimsConfig(Section):
    """Which claims say who calls: a claim's name, or its path with dots between."""

    agent: Text = "sub"
    user: Text | None = None
    role: Text | None = None


class IssuerConfig(Section):
    """An issuer of JWTs: OIDC, a SPIFFE trust domain, a Kubernetes cluster."""

    issuer: Text
    jwks: Text
    """The key set's URL (https, or http on this host), or `file:PATH`."""
    audience: Text
    claims: ClaimsConfig = ClaimsConfig()
    agents: Items[Text] = ()


class IdentityConfig(Section):
    issuers: Items[IssuerConfig] = ()
