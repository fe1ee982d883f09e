#!/bin/sh
# Rebuilds the shared objects of this folder with LLVM 19.
set -e
cd "$(dirname "$0")"
build() { # source triple flags output
	llc-19 -O2 -mtriple="$2" $3 -relocation-model=pic -filetype=obj -o /tmp/k.$$.o "$1"
	ld.lld-19 -shared --strip-all --build-id=none -z noexecstack -o "$4" /tmp/k.$$.o
	rm -f /tmp/k.$$.o
}
for s in kernels imports relocations; do
	build $s.ll x86_64-unknown-linux-gnu -mcpu=x86-64-v3 ${s}_amd64.so
	build $s.ll aarch64-unknown-linux-gnu -mattr=+reserve-x28 ${s}_arm64.so
done
