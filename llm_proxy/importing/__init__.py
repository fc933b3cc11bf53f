"""Translating the configs of other proxies to proxy.yaml: pure, with a verdict on every field."""
