# TensorFlow and TFX: every step of the TensorFlow side.
#
#   docker build --file infra/docker/tf.Dockerfile --tag tandem-tf .
#
# From the repository's root; `make images` does it for all three. ACCELERATOR=cuda adds CUDA.
# Runs as a numeric user without rights, on a read-only root file system: give it a writable /tmp, and
# a volume where output is to stay.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG ACCELERATOR=cpu
WORKDIR /src
COPY pyproject.toml ./
COPY infra/ infra/
RUN infra/docker/install.sh tf "${ACCELERATOR}"
COPY README.md LICENSE ./
COPY pipelines/ pipelines/
COPY tf_pipeline/ tf_pipeline/
COPY torch_pipeline/ torch_pipeline/
RUN /opt/uv/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/uv/bin/uv pip install --no-cache --offline --no-deps --compile-bytecode \
        --python /opt/venv/bin/python --target /opt/app /wheel/*.whl
COPY configs/ /opt/app/configs/

FROM ${BASE_IMAGE}
# Debian's, for what compiles as it runs: gcc for torch.compile on GPUs, g++ for it on CPUs.
ARG PACKAGES=""
# hadolint ignore=DL3008
RUN if [ -n "${PACKAGES}" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends ${PACKAGES} \
        && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/venv/ /opt/venv/
COPY --from=build /opt/app/ /opt/app/
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=tandem \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TANDEM_IMAGE=tf
WORKDIR /mnt/tandem
USER 10001:10001
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tandem-tf" \
    org.opencontainers.image.description="Tandem's TensorFlow side" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
CMD ["tandem", "doctor"]
