#!/bin/sh
# Usage: ptxas.sh DST. Puts NVIDIA's ptxas 12.4, and nvdisasm and cuobjdump, into the folder DST, for
# the tests of generated kernels and gouachec (export GOUACHE_PTXAS=DST/ptxas). They come from the non-free
# component of the Debian mirror that this system is configured with; nothing is installed, and the
# system's package lists stay as they are. Ends with status 3 if they cannot be had here.
# Their licence is NVIDIA's: never commit them.
set -eu
suite=trixie
sum=cd5fe85aee38d108b315f408a688641478f2402622a10c677478eb7a6c4e5319
give_up() { echo "ptxas: cannot be had here: $1" >&2; exit 3; }
[ $# = 1 ] || { echo "usage: ptxas.sh DST" >&2; exit 2; }
dst=$1
if [ -x "$dst/ptxas" ] && "$dst/ptxas" --version >/dev/null 2>&1; then exit 0; fi
[ "$(uname -sm)" = "Linux x86_64" ] || give_up "this is no Linux on x86-64"
for tool in apt-get dpkg-deb sha256sum; do command -v "$tool" >/dev/null || give_up "no $tool"; done
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keys" ] || give_up "no $keys"
uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  sed -n 's|^URIs:[[:space:]]*||p; s|^deb[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}||p' |
  grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ') || true
[ -n "$uri" ] || give_up "no Debian mirror in this system's package sources"

w=$(mktemp -d)
trap 'rm -rf "$w"' EXIT
mkdir -p "$w/etc/apt.conf.d" "$w/etc/preferences.d" "$w/etc/sources.list.d" "$w/state/lists/partial" "$w/cache/archives/partial" "$w/out"
: >"$w/status"
cat >"$w/etc/sources.list.d/ptxas.sources" <<END
Types: deb
URIs: $uri
Suites: $suite
Components: non-free
Architectures: amd64
Signed-By: $keys
END
cat >"$w/apt.conf" <<END
Dir::Etc "$w/etc"; Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "sources.list.d";
Dir::State "$w/state"; Dir::State::status "$w/status"; Dir::Cache "$w/cache";
APT::Architecture "amd64"; APT::Sandbox::User "root";
END
export APT_CONFIG="$w/apt.conf"
apt-get -qq update >"$w/log" 2>&1 || give_up "the mirror's package list: $(tail -n 1 "$w/log")"
(cd "$w/out" && apt-get -qq download nvidia-cuda-toolkit) >"$w/log" 2>&1 || give_up "the mirror's package: $(tail -n 1 "$w/log")"
deb=$(echo "$w"/out/*.deb)
echo "$sum  $deb" | sha256sum -c --quiet >"$w/log" 2>&1 || give_up "the mirror has another version than the one whose sum is known here"
mkdir -p "$dst"
dpkg-deb --fsys-tarfile "$deb" | tar x -C "$w" ./usr/bin/ptxas ./usr/bin/nvdisasm ./usr/bin/cuobjdump
cp "$w/usr/bin/ptxas" "$w/usr/bin/nvdisasm" "$w/usr/bin/cuobjdump" "$dst/"
"$dst/ptxas" --version | tail -n 1
