"""The demo: a small agent, the config and policy it runs under, and the proxy that stands between."""
