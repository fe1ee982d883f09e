# make demo   everything from a fresh machine: tools, compile, train, sample, report
# make test   everything tested
# make check-long   the same, demo's training steps on an emulated GPU, and the compiled kernels on an emulated arm64
# make gpu-check   on a machine with an NVIDIA GPU: the tests on it, and times beside PyTorch's
# make bench-peers   timed beside PyTorch, OpenBLAS and oneDNN (Debian's python3-torch); PEERS='-rounds 1' for a quick look
# make precision-study   one deep transformer trained in 32 bits and in 16, without scales, with one, with one a resblock
.PHONY: demo test precision-study gpu-check gpu-programs bench-peers tools generate check-long clean
export CGO_ENABLED = 0
OUT ?= out/demo

demo: bin/demo
	GOUACHE_COMMIT="$$(git rev-parse --short HEAD 2>/dev/null)" bin/demo demo -out $(OUT)

bin/demo: generate
	go build -o bin/demo ./gen/demo/trainer

# As go generate does, but for this machine's processor alone, which takes a third of the time.
generate: tools
	go run ./cmd/gouachec -system demo -target native -o gen/demo

tools:
	@.ci/tools.sh

test: tools
	@.ci/tools.sh gcc
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt: run gofmt -w on: $$(gofmt -l $$(git ls-files '*.go'))"; exit 1; }
	go vet ./...
	go test -timeout 18m ./...
	GOUACHE_TEST_DEVICE=emu go test -timeout 18m -run '$(EMULATED)' ./tests/compiled ./tests/parity
	@if $(HAVE_ARM64); then $(RUN_ARM64) -run '$(TEMPLATES)' ./codegen/cpu; \
	else echo "make test: SKIPPED: no kernel for arm64 has run (.ci/tools.sh qemu-aarch64-static installs an emulator)"; fi
	@test -n "$$GOUACHE_PTXAS" || command -v ptxas >/dev/null || echo "make test: SKIPPED: ptxas has assembled no kernel (it is NVIDIA's and not free software: .ci/ptxas.sh DIR fetches it, then set GOUACHE_PTXAS=DIR/ptxas)"

bench-peers: tools
	go run ./cmd/gouachec -system peers -target native -o gen/peers
	go run ./cmd/gouachec -system emoji -target native -o gen/emoji
	go build -o bin/peers ./gen/peers/trainer
	go build -o bin/emoji ./gen/emoji/trainer
	go build -o bin/kbench ./cmd/kbench
	go run ./tests/peers $(PEERS)

precision-study: tools
	go run ./tests/precision $(STUDY)

# What gpu-check runs; the programs need neither Go nor CUDA's tools, so they can be built elsewhere.
# With PTXAS=PATH of NVIDIA's assembler they carry machine code and load at once.
gpu-programs:
	GOUACHE_PTXAS="$(or $(abspath $(PTXAS)),$$GOUACHE_PTXAS)" go generate -run 'system gpupeers ' ./models/systems
	go build -o bin/gpupeers ./gen/gpupeers/trainer
	go test -c -o bin/compiled.test ./tests/compiled
	go test -c -o bin/parity.test ./tests/parity
	go build -o bin/gpu-check ./tests/gpu

gpu-check: gpu-programs
	bin/gpu-check $(GPU)

# Tests that also run on an emulated GPU: every op, what orthogonal columns are, large graphs, and training steps of the three models.
EMULATED = OpsCompute|Orthogonalized|LargeGraphsAgree|ModelsMatchPyTorch

# An emulated arm64 runs tests of the templates of kernels, where there is one, and in check-long those of all packages that
# run machine code.
HAVE_ARM64 = { command -v qemu-aarch64-static && test -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1; } >/dev/null
RUN_ARM64 = QEMU_LD_PREFIX=/usr/aarch64-linux-gnu GOARCH=arm64 go test -exec qemu-aarch64-static -timeout 120m
TEMPLATES = Thin|OddSizes|ByColumns|MinimalFiltering|ReadInPlace|PrologueOnEither|Attention|16Bits|ShortSums|Householder
ARM64 = ./runtime/device/cpu ./runtime/exec ./codegen/cpu/... ./tests/compiled ./tests/parity

check-long: test
	go test -timeout 120m -count=1 -run 'Mutants|Assemble' ./codegen/cuda -long
	go test -timeout 120m -count=1 -run OnAnEmulatedGPU ./tests/compiled -long
	GOUACHE_TEST_DEVICE=emu go test -timeout 120m -count=1 -skip OnAnEmulatedGPU ./tests/compiled ./tests/parity
	@.ci/tools.sh qemu-aarch64-static
	$(RUN_ARM64) -count=1 -skip OnAnEmulatedGPU $(ARM64)

clean:
	rm -rf bin out gen/*/
