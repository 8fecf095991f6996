# The neutral node. Holds protocol/ and aggregator/ only: no code of a bank, nothing that can decrypt.
# Build from the repository's root: docker build -f docker/aggregator.Dockerfile .
FROM python:3.12.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/crossbank

# The user's id is that of whoever owns the key files on the host: keys are 0600.
ARG UID=10001
RUN useradd --uid "${UID}" --create-home --shell /usr/sbin/nologin crossbank \
    && install -d -o crossbank -m 0700 /var/lib/crossbank

COPY pins/py312.txt docker/requirements/aggregator.txt /tmp/pip/
RUN pip install --no-cache-dir -c /tmp/pip/py312.txt -r /tmp/pip/aggregator.txt && rm -r /tmp/pip

COPY protocol/ /opt/crossbank/protocol/
COPY aggregator/ /opt/crossbank/aggregator/

USER crossbank
WORKDIR /var/lib/crossbank
VOLUME /var/lib/crossbank
EXPOSE 7443

HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7480/health', timeout=4)"]

CMD ["python", "-m", "aggregator", "serve", "--config", "/etc/crossbank/aggregator.yaml"]
