#!/usr/bin/env bash
# Builds the image offline from a local Go toolchain image and runs it, by a
# Docker daemon of this script's own that leaves nothing behind: a socket, a data
# root and a device node in a folder that goes away with it. Needs root.
#
# The container has no network but the device that the gateway makes in it, so
# whatever answers there is the gateway.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=/usr/bin:$PATH:/usr/sbin:/sbin # the docker that came with dockerd

read -r _ host_uid _ </proc/self/uid_map
if ((EUID != 0 || host_uid != 0)); then
  echo 'docker-test needs root, since it starts a Docker daemon: sudo make docker-test' >&2
  exit 1
fi

tmp=$(mktemp -d)
daemon=
cleanup() {
  status=$?
  trap - EXIT
  if [[ -n $daemon ]]; then
    docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1 || true
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    ((status == 0)) || { echo '--- dockerd:' && tail -n 20 "$tmp/dockerd.log"; } >&2
  fi
  # What a daemon that was killed left mounted, deepest first.
  awk -v dir="$tmp/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    xargs -r -n 1 umount -l || true
  rm -rf "$tmp"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "docker-test: $*"; }
die() { say "$*" >&2 && exit 1; }
# until SECONDS COMMAND...: tries until it works.
until_ok() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# A daemon that touches neither firewall nor bridges of this machine.
mkdir "$tmp/data" "$tmp/exec"
echo '{}' >"$tmp/daemon.json"
dockerd --data-root "$tmp/data" --exec-root "$tmp/exec" --pidfile "$tmp/pid" \
  --host "unix://$tmp/sock" --config-file "$tmp/daemon.json" --bridge none \
  --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
  >"$tmp/dockerd.log" 2>&1 &
daemon=$!
export DOCKER_HOST=unix://$tmp/sock DOCKER_CONFIG=$tmp/config
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY
answers() { docker info || ! kill -0 "$daemon"; }
until_ok 60 answers && kill -0 "$daemon" 2>/dev/null || die 'dockerd does not start'
say "daemon $(docker info -f '{{.ServerVersion}}, storage {{.Driver}}')"

# The toolchain image: Go as it is on this machine, and a shell for RUN.
mkdir -p "$tmp/base"/{bin,etc,root,tmp}
cp "$(command -v busybox)" "$tmp/base/bin/busybox"
ln -s busybox "$tmp/base/bin/sh"
ln -s busybox "$tmp/base/bin/cp"
goroot=$(go env GOROOT)
tar -c -C "$tmp/base" . -C "${goroot%/*}" --exclude 'go/test' --exclude 'go/api' --exclude testdata \
  --transform "s,^${goroot##*/}\\(/\\|\$\\),usr/local/go/,S" "${goroot##*/}" >"$tmp/base.tar"
docker import -c 'ENV PATH=/usr/local/go/bin:/bin GOTOOLCHAIN=local GOFLAGS=-buildvcs=false HOME=/root' \
  "$tmp/base.tar" local/go >/dev/null
rm -rf "$tmp/base" "$tmp/base.tar"

# The context: the tree as it is now, with its modules, so that no network is
# needed, and none is given.
mkdir "$tmp/src"
git -c safe.directory="$PWD" ls-files -z -co --exclude-standard --deduplicate |
  tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$tmp/src"
(cd "$tmp/src" && go mod vendor)
image=tungate:test
# A device node of our own, which any user may open as on most distributions.
mknod -m 0666 "$tmp/tun" c 10 200
run=(--network none --cap-drop ALL --cap-add NET_ADMIN --read-only --device "$tmp/tun:/dev/net/tun"
  --sysctl net.ipv6.conf.all.disable_ipv6=0)


# Once by each builder, since they differ in what COPY keeps; the image of the
# last is the one that runs below.
for builder in classic BuildKit; do
  start=$SECONDS
  kit=0
  [[ $builder == classic ]] || kit=1
  DOCKER_BUILDKIT=$kit docker build --network none --build-arg GO_IMAGE=local/go \
    --build-arg VERSION=docker-test -t "$image" "$tmp/src" >"$tmp/build.log" 2>&1 ||
    { cat "$tmp/build.log" >&2 && die "$builder does not build the image"; }
  size=$(docker image inspect -f '{{.Size}}' "$image")
  say "image of $size bytes built offline by $builder in $((SECONDS - start)) s"
  version=$(docker run --rm "${run[@]}" "$image" version)
  [[ $version == *docker-test* ]] || die "version prints \"$version\", not the version it was built with"
  # With the capability on the file, and it not being given, exec is refused.
  ! docker run --rm --network none --cap-drop ALL "$image" version 2>/dev/null ||
    die "the file that $builder copied lost its capability"
done
say "version: $version"

id=$(docker run -d "${run[@]}" "$image" run -c /examples/echo.yaml)
pid=$(docker inspect -f '{{.State.Pid}}' "$id")
inside() { nsenter -t "$pid" -n "$@"; }
up() { inside ip -o link show tun0 up | grep -q LOWER_UP; }
until_ok 10 up || { docker logs "$id" >&2 && die 'the gateway makes no device in 10 s'; }

status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
[[ $(status Uid) == 65532 ]] || die "the gateway runs as user $(status Uid)"
# CAP_NET_ADMIN is bit 12; the gateway may have dropped it by now.
(((0x$(status CapEff) | 0x$(status CapPrm) | 0x$(status CapBnd)) & ~0x1000)) &&
  die "the gateway holds capabilities $(status CapPrm)"
say "runs as user $(status Uid) with capabilities $(status CapEff)"

# Any address and port of the device's subnets answers what it is sent.
head -c 1000000 /dev/urandom >"$tmp/sent"
for to in TCP4:198.18.5.6:7 'TCP6:[fd00:18::5:6]:7'; do
  inside timeout 20 socat -t 10 - "$to" <"$tmp/sent" >"$tmp/got" || die "$to: $(docker logs "$id" 2>&1)"
  cmp "$tmp/sent" "$tmp/got" || die "$to: other bytes came back"
  say "$to echoed 1,000,000 bytes"
done
for to in UDP4:198.18.5.6:7 'UDP6:[fd00:18::5:6]:7'; do
  got=$(echo datagram | inside timeout 5 socat -t 1 - "$to")
  [[ $got == datagram ]] || die "$to: no echo"
  say "$to echoed"
done

docker stop -t 20 "$id" >/dev/null
code=$(docker inspect -f '{{.State.ExitCode}}' "$id")
((code == 0)) || { docker logs "$id" >&2 && die "stopped with exit code $code"; }
say 'stopped with exit code 0'
