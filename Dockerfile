FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python -m venv /opt/ecgbatch \
    && /opt/ecgbatch/bin/pip install --no-cache-dir torch==2.13.0 '.[postgresql]'

FROM python:3.11-slim
COPY --from=build /opt/ecgbatch /opt/ecgbatch
ENV PATH=/opt/ecgbatch/bin:$PATH
RUN useradd --create-home ecgbatch
USER ecgbatch
WORKDIR /home/ecgbatch
ENTRYPOINT ["ecgbatch"]
