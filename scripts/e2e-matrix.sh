#!/usr/bin/env bash
# Runs the whole e2e suite over every device of the matrix, one after the other, and
# says at the end over which it failed.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()
for kind in tun tap; do
  for queues in 1 2; do
    for offload in '' all-off no-vnet_hdr no-checksum no-tso4 no-tso6 no-ecn no-uso; do
      device="$kind queues=$queues $offload"
      printf '\n==> %s\n' "$device"
      make --no-print-directory e2e DEVICE="$device" || failed+=("$device")
    done
  done
done
((${#failed[@]} == 0)) || printf 'FAILED: %s\n' "${failed[@]}"
((${#failed[@]} == 0))
