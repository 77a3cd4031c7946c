#!/bin/sh
# udhcpc runs this at every event, with what the server said in variables.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
ip route replace default via "$router" dev "$interface"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
echo "$ip/$mask via $router dns $dns mtu $mtu lease $lease" >/lease
