# docker build --target cpu .      scores by the compiled kernel, without torch
# docker build --target cuda .     scores on a GPU, with torch and its CUDA libraries
FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/ecgbatch
WORKDIR /src
COPY deploy/requirements.lock ./
RUN /opt/ecgbatch/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY . .
RUN /opt/ecgbatch/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/ecgbatch/bin/pip uninstall --yes setuptools

FROM build AS build-cuda
RUN /opt/ecgbatch/bin/pip install --no-cache-dir torch==2.13.0

FROM python:3.11-slim-bookworm AS base
RUN useradd --uid 10001 --create-home ecgbatch \
    && install --directory --owner ecgbatch /models
COPY deploy/healthy /usr/local/bin/ecgbatch-healthy
ENV PATH=/opt/ecgbatch/bin:$PATH ECGBATCH_MODEL_DIR=/models PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/ecgbatch
VOLUME /models
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["ecgbatch-healthy"]
ENTRYPOINT ["ecgbatch"]

FROM base AS cuda
# gcc stays: Triton builds the launcher of its kernels when they are first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV ECGBATCH_DEVICE=cuda TRITON_CACHE_DIR=/tmp/triton
COPY --from=build-cuda /opt/ecgbatch /opt/ecgbatch
USER 10001

FROM base AS cpu
COPY --from=build /opt/ecgbatch /opt/ecgbatch
USER 10001
