# The image of every role: `docker build -t tailrace .`, then `docker run tailrace worker --config FILE --role ROLE`.
FROM python:3.11.15-slim-bookworm AS build
# The compiler of the hot modules: the image that runs has none.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/tailrace
COPY pyproject.toml setup.py README.md LICENSE ./
COPY schemas schemas
COPY processors processors
COPY sinks sinks
COPY pipeline pipeline
# Wheels only, but for Tailrace itself. The demo extra carries the embedded broker of `tailrace demo`.
RUN /opt/tailrace/bin/pip install --no-cache-dir --only-binary :all: '.[demo]'

FROM python:3.11.15-slim-bookworm
COPY --from=build /opt/tailrace /opt/tailrace
ENV PATH=/opt/tailrace/bin:$PATH PYTHONUNBUFFERED=1
# A number, not a name: Kubernetes' runAsNonRoot can only check a number.
USER 10001:10001
WORKDIR /tmp
EXPOSE 9464
# telemetry.port; a container that is no worker (topics, check, demo) turns this off.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["tailrace"]
CMD ["--help"]
