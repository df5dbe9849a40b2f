# The worker and the command line, without torch and without Java.
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY model model
COPY export export
COPY stream stream
COPY backtest backtest
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt . \
 && useradd --create-home --uid 10001 clickscore

WORKDIR /home/clickscore
USER clickscore
EXPOSE 6066
STOPSIGNAL SIGTERM
ENTRYPOINT ["clickscore"]
CMD ["worker", "--web-host", "0.0.0.0"]
