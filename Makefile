# What a person types. What decides whether a commit lands is .ci/run, and the
# targets below that check something are its steps.

REGISTRY_TAG ?= dev
VERSION      ?= $(shell git describe --tags --dirty 2>/dev/null)
FUZZTIME     ?= 30s
BENCH        ?= .
FAULTRUNS    ?= 20
SCALE        ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the binary: bin/registry
	go build -ldflags "-X main.version=$(VERSION)" -o bin/registry ./cmd/registry

.PHONY: test
test: ## run the tests
	go test -p 4 ./...

.PHONY: race
race: ## run the tests with the race detector
	go test -race ./...
	go -C tests test -race -short ./e2e ./failover ./faults/... ./source

.PHONY: lint
lint: ## check formatting, vet, staticcheck, scripts, generated code, go.mod, imports
	@.ci/run gofmt vet staticcheck shell generated tidy imports

.PHONY: generate
generate: ## generate the protobuf code (needs protoc)
	.ci/generate

.PHONY: bench
bench: ## run the benchmarks (BENCH=regexp), the comparison with other libraries too
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...
	go -C tests test -run '^$$' -bench '$(BENCH)' -benchmem ./ringbench

.PHONY: e2e
e2e: ## run the tests on real processes, one line for each
	go -C tests test -count=1 -v ./e2e

.PHONY: faults
faults: ## inject faults into real processes, FAULTRUNS=20 runs of each kind (an hour; all kinds only as root)
	go -C tests run ./faults -runs $(FAULTRUNS) -parallel 3

.PHONY: mutants
mutants: ## switch every protection off in turn and have faults and tests find it (half an hour; all kinds only as root)
	go -C tests run ./faults -mutant all -parallel 2

.PHONY: compare
compare: ## measure calls beside etcd's newest release, built here (ten minutes on a quiet machine)
	go -C tests run ./compare

.PHONY: scale
scale: ## measure what 10,000 to a million members cost (SCALE="-groups 1,1000,100000 -json"; ten minutes)
	go -C tests run ./scale $(SCALE)

.PHONY: failover
failover: ## time the loss of a leader, beside etcd's newest release
	go -C tests run ./failover -rounds 30

.PHONY: fuzz
fuzz: ## run each fuzz test for a while (FUZZTIME=30s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u | while read -r package; do \
	  for fuzz in $$(cat $$package/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
	    echo "$$package $$fuzz"; \
	    go test -run '^$$' -fuzz "^$$fuzz\$$" -fuzztime $(FUZZTIME) $$package || exit; \
	  done; \
	done

.PHONY: packages
packages: ## build the packages for Debian and Red Hat: bin/packages
	VERSION=$(VERSION) packaging/build bin/packages

.PHONY: release-dry-run
release-dry-run: release-tools ## make all files of a release and publish none: dist
	PATH="$(CURDIR)/bin/tools:$$PATH" goreleaser release --snapshot --clean --skip=publish

.PHONY: release-tools
release-tools: # goreleaser is minutes to compile, once
	go -C packaging/release mod tidy -diff
	go -C packaging/release build -trimpath -o $(CURDIR)/bin/tools/ github.com/goreleaser/goreleaser/v2 github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

.PHONY: image
image: ## build the container images from binaries compiled here, pulling nothing
	REGISTRY_TAG=$(REGISTRY_TAG) VERSION=$(VERSION) .ci/image

.PHONY: compose-test
compose-test: ## run docker-compose.yml on the Docker engine and kill its nodes
	@.ci/run compose

.PHONY: ci
ci: ## run all that decides whether a commit lands
	@.ci/run

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin dist registry
