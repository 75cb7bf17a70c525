# Neither framework: ingestion, submission, comparison, and the tracking server.
#
#   docker build --file infra/docker/core.Dockerfile --tag tandem-core .
#
# From the repository's root; `make images` does it for all three.
# Runs as a numeric user without rights, on a read-only root file system: give it a writable /tmp, and
# a volume where output is to stay.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml ./
COPY infra/ infra/
RUN infra/docker/install.sh core cpu
COPY README.md LICENSE ./
COPY pipelines/ pipelines/
COPY tf_pipeline/ tf_pipeline/
COPY torch_pipeline/ torch_pipeline/
RUN /opt/uv/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/uv/bin/uv pip install --no-cache --offline --no-deps --compile-bytecode \
        --python /opt/venv/bin/python --target /opt/app /wheel/*.whl
COPY configs/ /opt/app/configs/

FROM ${BASE_IMAGE}
COPY --from=build /opt/venv/ /opt/venv/
COPY --from=build /opt/app/ /opt/app/
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=tandem \
    PYTHONUNBUFFERED=1 \
    TANDEM_IMAGE=core
WORKDIR /mnt/tandem
USER 10001:10001
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tandem-core" \
    org.opencontainers.image.description="Tandem without a framework" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
CMD ["tandem", "doctor"]
