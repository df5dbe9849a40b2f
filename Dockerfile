# Worker, gateway and command line, without torch and without Java; with `--target training` also torch, for
# `clickscore retrain`. Every package of Python is checked against its hash: `make hashes` writes the requirements, and
# `make digests` the digests of the base image.
FROM python:3.11.15-slim-trixie@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93 AS build

# A compiler builds the native operator of the ranking (decision 39); the image itself has none.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY deploy/requirements-build.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY model model
COPY export export
COPY stream stream
COPY backtest backtest
COPY retraining retraining
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.15-slim-trixie@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93 AS serving

COPY deploy/requirements.txt /tmp/
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement /tmp/requirements.txt \
 && pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index /wheels/*.whl \
 && useradd --create-home --uid 10001 clickscore

WORKDIR /home/clickscore
USER clickscore
EXPOSE 6066 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["clickscore"]
CMD ["worker", "--web-host", "0.0.0.0"]

FROM serving AS training

USER root
COPY deploy/requirements-training.txt /tmp/
# LightGBM's wheel needs the OpenMP library of the system.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement /tmp/requirements-training.txt
USER clickscore
CMD ["retrain", "--help"]

FROM serving
