#!/usr/bin/env bash
# Gets the kernel that the guests of e2e boot, Debian's for clouds, and the
# drivers of their network cards, from apt's package. Nothing is installed.
#
#   bin/guest/vmlinuz               the kernel
#   bin/guest/lib/modules/VERSION   the drivers, what they need, and modules.dep
#
# Where apt has no such package, files put there by hand serve as well.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

drivers='virtio_pci|virtio_net|vmxnet3'
meta=linux-image-cloud-amd64 # it depends on the package of the newest version

mkdir -p bin
tmp=$(mktemp -d -p bin guest-kernel.XXXXXX)
trap 'rm -rf "$tmp"' EXIT

as_root=()
((EUID == 0)) || as_root=(sudo -n)
fetch() {
  local package
  package=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: //p')
  [[ -n $package ]] && (cd "$tmp" && apt-get -q download "$package")
}
update() { "${as_root[@]}" apt-get -q update; }
# The package lists may be as old as the machine's image, or absent.
if ! { fetch || { update && fetch; }; } >"$tmp/log" 2>&1 </dev/null; then
  tail -n 20 "$tmp/log" >&2
  echo "apt-get could not download $meta: its last lines are above" >&2
  exit 1
fi

package=$(echo "$tmp"/*.deb)
dpkg-deb -x "$package" "$tmp/all"
version=$(cd "$tmp/all/lib/modules" && echo *)
modules=lib/modules/$version

# modules.dep has a line for each module, "PATH: PATH...": of the drivers' lines
# every path is kept.
find "$tmp/all/$modules" -name '*.ko.xz' -exec busybox unxz {} +
busybox depmod -b "$tmp/all" "$version"
grep -E "/($drivers)\\.ko:" "$tmp/all/$modules/modules.dep" | tr -s ': ' '\n' | sort -u >"$tmp/keep"
for driver in ${drivers//|/ }; do
  grep -q "/$driver\\.ko\$" "$tmp/keep" || { echo "$package has no $driver" >&2 && exit 1; }
done
mkdir -p "$tmp/out/$modules"
tar -c -C "$tmp/all/$modules" -T "$tmp/keep" | tar -x -C "$tmp/out/$modules"
busybox depmod -b "$tmp/out" "$version"
cp "$tmp/all/boot/vmlinuz-$version" "$tmp/out/vmlinuz"

rm -rf bin/guest
mv "$tmp/out" bin/guest
echo "guests boot Linux $version"
