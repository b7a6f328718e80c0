# docker build --target cpu .      scores by the compiled kernel, without torch
# docker build --target cuda .     scores on a GPU, with torch and its CUDA libraries
FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv --without-pip /opt/ecgbatch
ENV PIP_PYTHON=/opt/ecgbatch/bin/python PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY deploy/requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation .

# Neither what builds packages is needed any more, nor the packages' own tests, a fifth of their size.
FROM build AS build-cpu
RUN pip uninstall --yes setuptools \
    && find /opt/ecgbatch -type d -name tests -prune -exec rm -r '{}' +

FROM build AS build-cuda
RUN pip install --require-hashes --requirement deploy/requirements-cuda.lock \
    && find /opt/ecgbatch -type d -name tests -prune -exec rm -r '{}' +

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
# gcc stays: Triton builds the launcher of its kernels when they are first used, in TRITON_CACHE_DIR.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV ECGBATCH_DEVICE=cuda TRITON_CACHE_DIR=/tmp/triton
COPY --from=build-cuda /opt/ecgbatch /opt/ecgbatch
USER 10001

FROM base AS cpu
COPY --from=build-cpu /opt/ecgbatch /opt/ecgbatch
USER 10001
