#!/usr/bin/env bash
# Downloads of 10 MiB over four connections while nftables drops packets at random, both
# ways, on the client's device: through the gateway without and with TSO, and between two
# kernels over a veth pair without TSO. Prints the seconds that the first and the last
# took, as rows of Markdown; ADR 0026 has them. As root; needs iperf3, nft and ethtool.
#
#   bench/loss.sh [GATEWAY [PERCENT...]]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
for tool in iperf3 nft ethtool; do
  command -v $tool >/dev/null || { echo "loss.sh needs $tool: apt-get install iperf3 nftables ethtool" >&2; exit 1; }
done
dir=$(mktemp -d)
gateway=${1:-$dir/gateway}
percents=("${@:2}")
((${#percents[@]})) || percents=(2 5)
[ -n "${1:-}" ] || go build -o "$gateway" ./cmd/gateway
client=loss-c-$$ server=loss-s-$$
pids=()
finish() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait || true
  pids=()
  ip netns del $client 2>/dev/null || true
  ip netns del $server 2>/dev/null || true
}
trap 'finish; rm -rf "$dir"' EXIT

# lab makes two namespaces with a veth pair between them.
lab() {
  for ns in $client $server; do
    ip netns add $ns
    ip -n $ns link set lo up
    ip netns exec $ns sysctl -qw net.ipv4.tcp_congestion_control=cubic
  done
  ip link add c0 netns $client type veth peer name s0 netns $server
  ip -n $client addr add 192.0.2.2/24 dev c0
  ip -n $server addr add 192.0.2.1/24 dev s0
  ip -n $client link set c0 up
  ip -n $server link set s0 up
  for port in 1 2 3 4; do
    ip netns exec $server iperf3 -s -p 520$port >/dev/null 2>&1 &
    pids+=($!)
  done
}

# drop loses $2 percent on device $1 of the client, both ways.
drop() {
  ip netns exec $client nft -f - <<END
table inet loss {
  chain in { type filter hook prerouting priority -300; iifname $1 numgen random mod 100 < $2 drop; }
  chain out { type filter hook postrouting priority -300; oifname $1 numgen random mod 100 < $2 drop; }
}
END
}

# measure downloads from $2, and prints a row that begins with $1.
measure() {
  local own=() port
  for port in 1 2 3 4; do
    ip netns exec $client timeout 120 iperf3 -c "$2" -p 520$port -R -n 10M -J >"$dir/$port.json" &
    own+=($!)
  done
  wait "${own[@]}"
  printf '| %s | %s |\n' "$1" "$(sed -n '/"sum_received"/,/}/s/.*"seconds":[^0-9]*\([0-9.]*\),*/\1/p' "$dir"/?.json |
    sort -n | sed -n '1p;$p' | xargs printf '%.1f - %.1f')"
}

# through measures through the gateway with offload.tso4 $1, $2 percent lost.
through() {
  lab
  cat >"$dir/gateway.yaml" <<END
device: {name: tun0, mtu: 1500, addresses: [198.18.0.1/15], offload: {tso4: $1}}
proxy: {handler: direct, mark: 1, forward: {$(for port in 1 2 3 4; do printf '"203.0.113.1:520%s": "192.0.2.1:520%s", ' $port $port; done)}}
admin: {listen: "off"}
END
  ip netns exec $client "$gateway" run -c "$dir/gateway.yaml" 2>"$dir/log" &
  pids+=($!)
  sleep 1
  ip -n $client route add 203.0.113.0/24 dev tun0
  drop tun0 "$2"
  measure "$2 %, tso4: $1" 203.0.113.1
  finish
}

printf '| loss | first - last, s |\n|---|---|\n'
for percent in "${percents[@]}"; do
  through off "$percent"
  through on "$percent"
  lab
  ip netns exec $client ethtool -K c0 tso off gso off gro off >/dev/null
  ip netns exec $server ethtool -K s0 tso off gso off gro off >/dev/null
  sleep 1
  drop c0 "$percent"
  measure "$percent %, kernel" 192.0.2.1
  finish
done
