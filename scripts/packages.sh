#!/usr/bin/env bash
# Installs what scripts/packages.txt lists and this machine lacks. Where it may
# not install, it says what is missing and how to get it, and fails.
#
#   packages.sh           install what is missing
#   packages.sh --check   only say what is missing
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin

missing=()
while read -r package sign _; do
  case $package in '' | '#'*) continue ;; esac
  case $sign in
    /*) [[ -e $sign ]] || missing+=("$package") ;;
    *) command -v "$sign" >/dev/null || missing+=("$package") ;;
  esac
done <packages.txt

((${#missing[@]})) || exit 0

as_root=()
((EUID == 0)) || as_root=(sudo -n)
if [[ ${1:-} == --check ]] || ! command -v apt-get >/dev/null ||
  { ((EUID != 0)) && ! sudo -n true 2>/dev/null; }; then
  echo "Missing packages: install them with: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

echo "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -y -q --no-install-recommends "$@" </dev/null >>"$log" 2>&1
}
# The package lists may be as old as the machine's image, or absent.
if ! apt update || ! apt install "${missing[@]}"; then
  tail -n 40 "$log" >&2
  echo "apt-get could not install ${missing[*]}: its last lines are above" >&2
  exit 1
fi
