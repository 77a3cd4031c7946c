#!/usr/bin/env bash
# Lets systemd read the unit under deploy/: unknown or misplaced settings fail. The
# manifests beside it are read by the Go tests of deploy.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# verify insists that the program exists, and it may not be installed here.
sed 's|=/usr/local/bin/gateway|=/bin/true|' deploy/tungate.service >"$tmp/tungate.service"
out=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$tmp/tungate.service" 2>&1) || true
out=$(grep -F tungate.service <<<"$out" || true)
[[ -z $out ]] || { echo "$out" && exit 1; }
systemd-analyze security --offline=true --threshold=25 --no-pager "$tmp/tungate.service" | tail -n 1
