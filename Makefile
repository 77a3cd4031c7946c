# make test is all there is to know: it installs what it needs and runs every
# check. The other targets are its parts. `make` alone lists them.

PREFIX    ?= /usr/local
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -s -w -X main.version=$(VERSION)
IMAGE     ?= tungate:$(VERSION)
FUZZTIME  ?= 10m
BENCHTIME ?= 1x

# What go test runs a test binary with, and how its results are shown and kept.
AS_ROOT   := $(CURDIR)/scripts/as-root
GOTESTSUM := bin/gotestsum --format pkgname-and-test-fails --hide-summary all $(if $(JSON),--jsonfile $(JSON)) --
TESTFLAGS ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary, bin/gateway
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/gateway ./cmd/gateway

.PHONY: install
install: build ## bin/gateway and the systemd unit, under PREFIX (/usr/local)
	install -D -m 0755 bin/gateway $(DESTDIR)$(PREFIX)/bin/gateway
	install -D -m 0644 deploy/tungate.service $(DESTDIR)$(PREFIX)/lib/systemd/system/tungate.service
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(PREFIX)/lib/systemd/system/tungate.service

.PHONY: docker
docker: ## the container image, tungate:VERSION
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: test
test: packages tools ## install what is missing, then every check below, then e2e
	@scripts/test.sh

.PHONY: packages
packages: ## install the Debian packages that tests need
	@scripts/packages.sh

.PHONY: fmt
fmt: bin/golangci-lint ## format the code (gofumpt, gci)
	bin/golangci-lint fmt

.PHONY: fmt-check
fmt-check: bin/golangci-lint ## fail where make fmt would change a file
	bin/golangci-lint fmt --diff

.PHONY: tidy-check
tidy-check: ## fail where go mod tidy would change go.mod or go.sum
	go mod tidy -diff

.PHONY: vet
vet: ## go vet
	go vet ./...

.PHONY: lint
lint: bin/golangci-lint ## golangci-lint, by the rules in .golangci.yml
	bin/golangci-lint run $(LINTFLAGS) ./...

.PHONY: unit
unit: bin/gotestsum ## unit tests and fuzz seeds
	$(GOTESTSUM) -exec $(AS_ROOT) -shuffle=on $(TESTFLAGS) $$(scripts/packages-of unit)

.PHONY: race
race: bin/gotestsum ## unit tests and fuzz seeds under the race detector
	CGO_ENABLED=1 $(GOTESTSUM) -exec $(AS_ROOT) -race -shuffle=on $(TESTFLAGS) $$(scripts/packages-of unit)

.PHONY: simulate
simulate: ## clients against the stack over bad networks, in simulated time: 1000 seeds; SEEDS=17-17 TRACE=1 shows every packet of one
	SIM_SEEDS=$(or $(SEEDS),1000) SIM_TRACE=$(TRACE) go test ./netstack -count 1 -run '^TestSimulation$$' $(if $(TRACE),-v) $(TESTFLAGS)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10m)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: fuzz-short
fuzz-short: ## every fuzz target for 5 s
	@scripts/fuzz.sh 5s

.PHONY: bench-once
bench-once: ## every Go benchmark for BENCHTIME (one iteration)
	pkgs=$$(scripts/packages-of bench); test -z "$$pkgs" || \
	go test -exec $(AS_ROOT) -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $(TESTFLAGS) $$pkgs

.PHONY: bench
bench: build ## the README's figures, with plain veth measured next to them, and bench-device
	bench/run.sh

.PHONY: bench-device
bench-device: ## the device and the stack by themselves: bare reads, a sink, queues, no vnet_hdr
	bench/run.sh -tests device,sink,queues,novnet

.PHONY: scale
scale: build ## a million connections of real clients, held and ended in three ways (20 minutes); SCALE='-n 50000' for fewer
	go build -o bin/scale ./bench/scale
	$(AS_ROOT) bin/scale -bin bin/gateway $(or $(SCALE),-out docs)

.PHONY: flood
flood: build packages ## 200 real clients beside floods of SYNs, ACKs, RSTs, FINs and data; FLOOD='-seconds 5' for a quick look
	go build -o bin/flood ./bench/flood
	$(AS_ROOT) bin/flood -bin bin/gateway $(FLOOD)

.PHONY: cross
cross: ## build and vet for arm64 and 386, without cgo
	@failed=0; for arch in arm64 386; do for check in build vet; do \
	  echo "GOARCH=$$arch CGO_ENABLED=0 go $$check ./..."; \
	  GOARCH=$$arch CGO_ENABLED=0 go $$check ./... || failed=1; done; done; exit $$failed

.PHONY: e2e
e2e: bin/gotestsum bin/guest/vmlinuz ## real clients in network namespaces and virtual machines, as root; DEVICE='tap queues=2' over another device
	TUNGATE_E2E_DEVICE='$(DEVICE)' $(GOTESTSUM) -exec $(AS_ROOT) -count 1 -timeout 20m $(TESTFLAGS) ./e2e/...

.PHONY: e2e-matrix
e2e-matrix: bin/gotestsum bin/guest/vmlinuz ## the whole of e2e over every device: both kinds, one queue and two, offloads on, each off, all off (an hour and a half)
	@scripts/e2e-matrix.sh

# What virtual machines boot, downloaded by apt and not installed.
bin/guest/vmlinuz: scripts/guest-kernel.sh
	scripts/guest-kernel.sh

.PHONY: deploy-check
deploy-check: ## the systemd unit under deploy/
	scripts/deploy-check.sh

.PHONY: docker-test
docker-test: ## build the image offline by a daemon of its own and run it, as root
	$(AS_ROOT) scripts/docker-test.sh

.PHONY: cover
cover: ## coverage of the unit tests, bin/cover.html
	@mkdir -p bin
	go test -exec $(AS_ROOT) -coverprofile bin/cover.out -coverpkg ./... $$(scripts/packages-of unit)
	go tool cover -html bin/cover.out -o bin/cover.html
	go tool cover -func bin/cover.out | tail -n 1

.PHONY: clean
clean: ## remove bin/, where all that is built goes
	rm -rf bin

# The tools are pinned in tools/go.mod and built once: golangci-lint takes
# minutes on a cold cache.
.PHONY: tools
tools: bin/golangci-lint bin/gotestsum
bin/golangci-lint: tools/go.mod
	go build -C tools -o ../bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
bin/gotestsum: tools/go.mod
	go build -C tools -o ../bin/ gotest.tools/gotestsum
	@touch $@
