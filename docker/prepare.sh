#!/usr/bin/env sh
# Makes docker/deploy/: a certificate authority, everybody's certificates and configs, for compose.yaml.
# Run once from the repository's root. For real banks each party makes its own key at home and sends only
# the request; here all parties are one machine.
set -eu

PYTHON="${PYTHON:-.venv/bin/python}"
DEPLOY="${DEPLOY:-docker/deploy}"
BANKS="${BANKS:-bank_a bank_b bank_c}"

if [ -e "$DEPLOY/ca/ca.pem" ]; then
    echo "$DEPLOY exists; remove it to start with new keys" >&2
    exit 1
fi
umask 077
mkdir -p "$DEPLOY/ca" "$DEPLOY/secrets" "$DEPLOY/aggregator" "$DEPLOY/consortium"
"$PYTHON" -m aggregator ca init "$DEPLOY/ca" --host aggregator --host localhost --host 127.0.0.1
"$PYTHON" -m aggregator ca operator "$DEPLOY/ca"
mv "$DEPLOY/ca/aggregator.key" "$DEPLOY/secrets/aggregator.key"
mv "$DEPLOY/ca/operator.key" "$DEPLOY/secrets/operator.key"
mv "$DEPLOY/ca/aggregator.pem" "$DEPLOY/aggregator/aggregator.pem"
mv "$DEPLOY/ca/operator.pem" "$DEPLOY/consortium/operator.pem"
cp "$DEPLOY/ca/ca.pem" "$DEPLOY/ca/crl.pem" "$DEPLOY/aggregator/"
cp "$DEPLOY/ca/ca.pem" "$DEPLOY/consortium/ca.pem"

cat > "$DEPLOY/aggregator/aggregator.yaml" <<END
listen: "0.0.0.0:7443"
console: "127.0.0.1:7480"
ca: ca.pem
certificate: aggregator.pem
key: /run/secrets/aggregator_key
store: sqlite:////var/lib/crossbank/aggregator.db
END

fingerprint=$("$PYTHON" -m bank_node contract | sed -n 's/^fingerprint //p')
roster=$(echo "$BANKS" | sed 's/ /, /g')
cat > "$DEPLOY/consortium/operator.yaml" <<END
aggregator: {address: "aggregator:7443", ca: ca.pem, certificate: operator.pem, key: /run/secrets/operator_key}
run:
  title: compose run
  roster: [$roster]
  contract_fingerprint: $fingerprint
  params: {n_estimators: 50, max_depth: 6, eta: 0.1}
END

for bank in $BANKS; do
    mkdir -p "$DEPLOY/$bank/events"
    # Here both sides are you; between two parties, the bank reads this fingerprint out over the phone.
    spoken=$("$PYTHON" -m bank_node enroll --key "$DEPLOY/secrets/$bank.key" --bank "$bank" \
        --out "$DEPLOY/$bank/request.pem" | sed -n 's/^fingerprint *//p')
    "$PYTHON" -m aggregator ca approve "$DEPLOY/ca" "$DEPLOY/$bank/request.pem" --bank "$bank" \
        --fingerprint "$spoken" --out "$DEPLOY/$bank/certificate.pem"
    rm "$DEPLOY/$bank/request.pem"
    cp "$DEPLOY/ca/ca.pem" "$DEPLOY/$bank/ca.pem"
    cat > "$DEPLOY/$bank/$bank.yaml" <<END
bank_id: $bank
events: /srv/events
work_dir: /var/lib/crossbank
contract: null
aggregator: {address: "aggregator:7443", ca: ca.pem, certificate: certificate.pem, key: /run/secrets/${bank}_key}
END
done
echo "$DEPLOY is ready; put each bank's payments into $DEPLOY/<bank>/events/"
