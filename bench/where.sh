#!/usr/bin/env bash
# Where the processors' time goes in one test of bench/run.sh: samples of the whole
# machine by perf, the gateway's own and the kernel's on its behalf apart from those of
# client and server, as microseconds of processor time for each operation. As root, on a
# machine that does nothing else; needs perf.
#
#   bench/where.sh [SUBJECT...] -- TEST      (tungate pasta, and crr or rr64)
set -euo pipefail
cd "$(dirname "$0")/.."
subjects=()
while (($#)) && [ "$1" != -- ]; do
  subjects+=("$1")
  shift
done
command -v perf >/dev/null || { echo "where.sh needs perf: apt-get install linux-perf" >&2; exit 1; }
test=${2:?"usage: bench/where.sh SUBJECT... -- TEST"}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '| %s | a second | gateway, user | gateway, kernel | client and server | idle |\n|---|---|---|---|---|---|\n' "$test"
for subject in "${subjects[@]}"; do
  bench/run.sh -only "$subject" -tests "$test" -rounds 1 -seconds 10 >"$dir/out" 2>&1 &
  bench=$!
  until pgrep -P $bench -f -- "-role (crr|rr) " >/dev/null; do
    kill -0 $bench 2>/dev/null || { cat "$dir/out" >&2; exit 1; }
    sleep 0.1
  done
  sleep 2
  perf record -a -q -F 2000 -o "$dir/data" -- sleep 5
  wait $bench
  rate=$(sed -n "s/^| $test \/s[ |-]*\([0-9]*\).*/\1/p" "$dir/out" | head -1)
  perf report -i "$dir/data" --stdio -q -F comm,overhead_us,overhead_sys 2>/dev/null |
    awk -v rate="$rate" -v subject="$subject" -v cores="$(nproc)" '
      { user = $2; kernel = $3; sub("%", "", user); sub("%", "", kernel) }
      $1 == "bench" { ends += user + kernel; next }
      $1 == "swapper" { idle += user + kernel; next }
      $1 ~ /^(gateway|passt|haproxy|slirp4netns)/ { u += user; k += kernel }
      function us(percent) { return sprintf("%.1f us", percent / 100 * cores * 1e6 / rate) }
      END { printf "| %s | %d | %s | %s | %s | %s |\n", subject, rate, us(u), us(k), us(ends), us(idle) }'
done
