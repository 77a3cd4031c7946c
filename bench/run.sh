#!/usr/bin/env bash
# Builds and runs the benchmark as root; README.md beside it says what it measures.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
mkdir -p bin
go build -o bin/bench ./bench
exec scripts/as-root bin/bench "$@"
