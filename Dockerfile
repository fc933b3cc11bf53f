# Build with `docker build -t llm-proxy .`; run with proxy.yaml and policy.yaml mounted and the store on a volume:
#   docker run -p 4000:4000 -v "$PWD/config:/etc/llm-proxy:ro" -v llm-proxy:/data llm-proxy

FROM python:3.13-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN ["python", "-m", "venv", "/opt/llm-proxy"]
WORKDIR /src
# The dependencies are a layer of their own, kept until the lock changes.
COPY requirements.txt ./
RUN ["/opt/llm-proxy/bin/pip", "install", "--require-hashes", "--only-binary=:all:", "-r", "requirements.txt"]
COPY pyproject.toml README.md LICENSE ./
COPY llm_proxy ./llm_proxy
COPY routing ./routing
COPY budgets ./budgets
RUN ["/opt/llm-proxy/bin/pip", "install", "--no-deps", "--no-build-isolation", "."]

FROM python:3.13-slim-bookworm
COPY --from=builder /opt/llm-proxy /opt/llm-proxy
RUN ["install", "--directory", "--owner=10001", "--group=10001", "--mode=0700", "/data"]
ENV PATH=/opt/llm-proxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    LLM_PROXY_CONFIG=/etc/llm-proxy/proxy.yaml
USER 10001:10001
# A store named by a relative path lands here; write the signing key's path in full: file:/data/signing.key.
WORKDIR /data
VOLUME ["/data"]
EXPOSE 4000
# In exec form, so that the server itself is process 1 and is told when to drain.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 4000, timeout=2); c.request('GET', '/health/live'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["llm-proxy"]
CMD ["serve", "--host", "0.0.0.0", "--port", "4000"]
