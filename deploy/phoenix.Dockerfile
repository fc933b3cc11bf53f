# Phoenix as `make test-phoenix` runs it: the same locked files, so that what was tested is what is deployed.
# Phoenix is under the Elastic License 2.0.

FROM python:3.13-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN ["python", "-m", "venv", "/opt/phoenix"]
COPY requirements-phoenix.txt ./
RUN ["/opt/phoenix/bin/pip", "install", "--require-hashes", "--only-binary=:all:", "-r", "requirements-phoenix.txt"]

FROM python:3.13-slim-bookworm
COPY --from=builder /opt/phoenix /opt/phoenix
RUN ["install", "--directory", "--owner=10001", "--group=10001", "--mode=0700", "/data"]
ENV PATH=/opt/phoenix/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    PHOENIX_WORKING_DIR=/data \
    PHOENIX_HOST=0.0.0.0 \
    PHOENIX_PORT=6006 \
    PHOENIX_TELEMETRY_ENABLED=false \
    PHOENIX_ALLOW_EXTERNAL_RESOURCES=false
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 6006
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 6006, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["phoenix"]
CMD ["serve"]
