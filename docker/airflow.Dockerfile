# Airflow with Crossbank's provider and DAGs: a bank's scheduler, or the consortium operator's.
# Build from the repository's root: docker build -f docker/airflow.Dockerfile .
FROM python:3.12.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/crossbank/numba \
    AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/crossbank/dags \
    AIRFLOW__CORE__EXECUTOR=LocalExecutor \
    AIRFLOW__CORE__PARALLELISM=8 \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=1

ARG UID=10001
RUN useradd --uid "${UID}" --create-home --shell /usr/sbin/nologin crossbank \
    && install -d -o crossbank -m 0700 /var/lib/crossbank /var/lib/airflow

COPY pins/py312.txt docker/requirements/ /tmp/pip/
RUN pip install --no-cache-dir -c /tmp/pip/py312.txt \
        -r /tmp/pip/aggregator.txt -r /tmp/pip/bank-node.txt -r /tmp/pip/airflow.txt \
    && pip uninstall --yes nvidia-nccl-cu12 nvidia-nccl-cu13 && rm -r /tmp/pip

# Installed and not only copied: Airflow finds a provider by its distribution's entry point.
COPY LICENSE README.md pyproject.toml /opt/crossbank/
COPY protocol/ /opt/crossbank/protocol/
COPY features/ /opt/crossbank/features/
COPY bank_node/ /opt/crossbank/bank_node/
COPY aggregator/ /opt/crossbank/aggregator/
COPY dags/ /opt/crossbank/dags/
RUN pip install --no-cache-dir --no-deps --no-build-isolation /opt/crossbank
COPY --chmod=0755 docker/airflow-entrypoint.sh /usr/local/bin/airflow-entrypoint

USER crossbank
WORKDIR /var/lib/airflow
VOLUME /var/lib/airflow /var/lib/crossbank
EXPOSE 8080

HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=4 \
    CMD ["python", "-c", "import json, urllib.request as u; parts = json.load(u.urlopen('http://127.0.0.1:8080/api/v2/monitor/health', timeout=8)); assert all(parts[name]['status'] == 'healthy' for name in ('metadatabase', 'scheduler', 'dag_processor', 'triggerer')), parts"]

CMD ["airflow-entrypoint"]
