# A bank's command line, without Airflow: for a bank that schedules by its own means, and for one-off commands.
# Build from the repository's root: docker build -f docker/bank-node.Dockerfile .
FROM python:3.12.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/crossbank NUMBA_CACHE_DIR=/var/lib/crossbank/numba

ARG UID=10001
RUN useradd --uid "${UID}" --create-home --shell /usr/sbin/nologin crossbank \
    && install -d -o crossbank -m 0700 /var/lib/crossbank

# XGBoost brings 300 MB for graphics cards; it runs without.
COPY pins/py312.txt docker/requirements/bank-node.txt /tmp/pip/
RUN pip install --no-cache-dir -c /tmp/pip/py312.txt -r /tmp/pip/bank-node.txt \
    && pip uninstall --yes nvidia-nccl-cu12 nvidia-nccl-cu13 && rm -r /tmp/pip

COPY protocol/ /opt/crossbank/protocol/
COPY features/ /opt/crossbank/features/
COPY bank_node/ /opt/crossbank/bank_node/

USER crossbank
WORKDIR /var/lib/crossbank
VOLUME /var/lib/crossbank

# A command that ends needs no health check; one that waits for hours shows here that the image is sound.
HEALTHCHECK --interval=60s --timeout=30s --start-period=10s --retries=3 \
    CMD ["python", "-m", "bank_node", "contract"]

ENTRYPOINT ["python", "-m", "bank_node"]
CMD ["--help"]
