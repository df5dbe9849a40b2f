# Worker, gateway and command line, without torch and without Java. Every package is checked against its hash:
# `make hashes` writes the requirements, and `make digests` the digests of the base image.
FROM python:3.11.15-slim-trixie@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93 AS build

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
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.15-slim-trixie@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93

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
