#!/bin/sh
# Runs the tests of the engines besides the embedded one. What is missing is installed where we may (root, with apt);
# elsewhere the tests that need it are skipped, each with its reason. Called by make.
set -eu
have_server() { command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
have_java() { command -v java >/dev/null 2>&1 || [ -n "${JAVA_HOME:-}" ]; }

wanted=""
have_server || wanted="postgresql"
have_java || wanted="$wanted openjdk-17-jre-headless"
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing $wanted"
  # The tests start a server of their own; Debian's package must not start one.
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Debian 13 has Java 21 instead of 17; Spark 4 runs on both.
  apt-get install -qq -y --no-install-recommends $wanted >/dev/null ||
    apt-get install -qq -y --no-install-recommends $(echo "$wanted" | sed s/openjdk-17/openjdk-21/) >/dev/null
fi
have_server || echo "PostgreSQL's server programs are missing; on Debian: apt-get install postgresql" >&2
have_java || echo "Java is missing; on Debian: apt-get install openjdk-17-jre-headless" >&2
if have_java && ! "$VENV/bin/python" -c "import pyspark" 2>/dev/null; then
  echo "installing pyspark (about 430 MB)"
  "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" -r pins/spark.txt
fi
# Where everything is there a skipped test would be a lie: then they must run.
if have_server && have_java; then
  export CROSSBANK_ENGINES=1
fi
exec "$VENV/bin/python" -m pytest tests/engines -m "slow or not slow" --timeout 1800 -rs
