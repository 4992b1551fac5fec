# Go, Python 3, gcc, make and git are enough: `make deps` brings the rest into a cache outside the tree.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.PHONY: build deps test race lint fmt fuzz e2e sim bench demo check clean

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
SEED     ?= 0
BIN      := $${AFTERIMAGE_DEPS:-$${XDG_CACHE_HOME:-$$HOME/.cache}/afterimage-deps}/bin
DEPS_ENV := eval "$$(scripts/deps.sh --print-env)"

build: ## bin/afterimage
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/afterimage ./cmd/afterimage

deps: ## mongods, S3 server, tools, linters, Python: pinned, checked, cached
	@scripts/deps.sh

test: ## unit tests; no database, no network
	go test ./...

race: ## unit tests under the race detector, with the costly assertions
	go test -race -tags invariants $$(go list ./... | grep -v /e2e)

lint: ## golangci-lint, pinned
	@scripts/deps.sh lint
	$(BIN)/golangci-lint run ./...

fmt: ## gofumpt and goimports
	@scripts/deps.sh lint
	$(BIN)/golangci-lint fmt ./...

fuzz: ## every fuzz target for FUZZTIME
	@scripts/fuzz.sh $(FUZZTIME)

# TestFailOver's own workload can hang on a server call that has no time limit when the primary dies: run it by itself.
e2e: ## against real databases
	@$(DEPS_ENV) && go test -tags e2e -count=1 -p 1 -timeout 40m -skip '^TestFailOver$$' ./e2e/... ./dialect/... ./listeners/... ./restorer/... ./segment ./stream

sim: ## deterministic simulation; SEED=n replays one
	AFTERIMAGE_SEED=$(SEED) go test -tags sim -count=1 -run '^TestSim' ./e2e/sim/...

bench: ## the fixed work of the benchmarks, on real databases
	@$(DEPS_ENV) && go test -tags bench -count=1 -p 1 -timeout 60m -v ./e2e/bench/...

demo: build ## real databases on this machine, protected, damaged, restored
	@scripts/deps.sh mongod && $(DEPS_ENV) && bin/afterimage demo

check: ## everything that must pass before a change lands
	@for s in deps build lint test race e2e; do \
	  echo "== $$s"; t=$$SECONDS; $(MAKE) --no-print-directory $$s || { echo "== $$s FAILED after $$((SECONDS - t)) s"; exit 1; }; \
	  echo "== $$s passed in $$((SECONDS - t)) s"; \
	done

clean:
	rm -rf bin
