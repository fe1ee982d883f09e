#!/bin/sh
# Installs what the build needs and the machine lacks: LLVM 19's llc and lld.
# Debian and its kin: by apt-get. Elsewhere: says what to install. With the argument
# qemu-aarch64-static or gcc it does the same for that program, which only tests need.
set -eu
apt() {
  sudo=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "tools: $1: not found; run as root: apt-get install $*" >&2; exit 1; }
    sudo=sudo
  fi
  echo "tools: installing $*"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
if [ -n "${1:-}" ]; then
  case "$1" in
    # Test programs link libc: they can load a GPU's driver.
    qemu-aarch64-static) packages="qemu-user-static libc6-arm64-cross" library=/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ;;
    gcc) packages="gcc libc6-dev" library=/ ;;
    *) echo "tools: $1: not one of qemu-aarch64-static, gcc" >&2; exit 2 ;;
  esac
  command -v "$1" >/dev/null && [ -e $library ] && exit 0
  command -v apt-get >/dev/null || { echo "tools: $1 or its libraries: not found; install it with your system's packages (Debian's are called $packages)" >&2; exit 1; }
  apt $packages || { echo "tools: apt-get could not install $packages, see the messages above" >&2; exit 1; }
  exit 0
fi
command -v go >/dev/null || { echo "tools: go: not found; install Go 1.26 or newer (https://go.dev/dl) and put it on PATH" >&2; exit 1; }
if [ -n "${GOUACHE_LLVM:-}" ]; then exit 0; fi
have() { for v in 19 20 21 22 23 24; do command -v "$1-$v" >/dev/null && return 0; done; return 1; }
if have llc && have ld.lld; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "tools: LLVM 19 (llc and ld.lld): not found; install them with your system's packages, or set GOUACHE_LLVM to the folder that has them" >&2
  exit 1
fi
apt llvm-19 lld-19 || {
  echo "tools: apt-get could not install llvm-19 and lld-19; on Debian 12 they are in main, see the messages above" >&2; exit 1; }
