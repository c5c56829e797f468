#!/usr/bin/env bash
# Debian packages the build needs: installed when missing and root, otherwise named.
set -eu
python="${1:-python3}"
packages=(g++ cmake ninja-build make libonig-dev libutf8proc-dev nettle-dev nlohmann-json3-dev libcli11-dev
  doctest-dev clang libclang-rt-14-dev)
# Debian splits venv from its own Python; other builds carry it.
"$python" -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "fretsaw: packages are missing; install them and run make again:" >&2
  echo "  apt-get install ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
