#!/usr/bin/env bash
# Runs a small Airflow in one container and ends when any of its processes ends.
# Not `airflow standalone`: that opens log servers, which need no visitors.
set -euo pipefail

airflow db migrate
airflow api-server --host "${AIRFLOW_API_HOST:-0.0.0.0}" --port 8080 --workers 1 &
airflow scheduler --skip-serve-logs &
airflow dag-processor &
airflow triggerer --skip-serve-logs &

trap 'kill $(jobs -p) 2>/dev/null || true; wait; exit 143' TERM INT
status=0
wait -n || status=$?
echo "an Airflow process ended with exit code ${status}; stopping the others" >&2
kill $(jobs -p) 2>/dev/null || true
wait
exit "$((status == 0 ? 1 : status))"
