# What a developer types. `make` alone builds; `make check test` is what CI runs.
# Only Go, git and make have to be there: deploy/install-test-servers.sh sees to
# the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

export GOTOOLCHAIN := local

FUZZTIME ?= 20s
TESTTIMEOUT ?= 20m
TESTFLAGS ?=

# Private servers start as root only. Go itself runs as whoever types make; only
# the programs it builds run by sudo.
ifneq ($(shell id -u),0)
AS_ROOT := -exec 'sudo -n env "PATH=$(PATH)" CI=$(CI) SLUICE_CACHE=$(SLUICE_CACHE) GOFLAGS=-buildvcs=false'
endif

.PHONY: build demo test check bench fuzz soak docs servers clean

build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags='-s -w' -o build/sluice ./cmd/sluice

# Sends a dozen messages through a private mail system and shows what became of
# them. KEEP=1 leaves it running.
demo: export SLUICE_TARGET := demo
demo: servers build
	go run $(AS_ROOT) ./deploy/demo -sluice build/sluice $(if $(filter-out 0,$(KEEP)),-keep)

test: servers build/tools/testsum
	go test -json -race -count=1 -timeout=$(TESTTIMEOUT) $(TESTFLAGS) $(AS_ROOT) ./... | build/tools/testsum

check: build/tools/testsum build/tools/staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted:" $$unformatted; exit 1; fi
	go vet ./...
	build/tools/staticcheck ./...
	go mod tidy -diff
	cd internal/tools && go mod tidy -diff && go vet ./... && go test ./...
	@sum=$$(cat $(GENERATED) | cksum); $(MAKE) --no-print-directory docs; \
		if [ "$$sum" != "$$(cat $(GENERATED) | cksum)" ]; then echo "$(GENERATED) was not what the code says; it is now: commit it"; exit 1; fi
	sh -n deploy/install-test-servers.sh

# Compares Sluice with its peers, prints the tables and writes bench/RESULTS.md.
bench: export SLUICE_TARGET := bench
bench: servers build
	go run $(AS_ROOT) ./bench

# Feeds mail for a long time while clamd is killed again and again.
soak: export SLUICE_TARGET := soak
soak: servers build
	go run $(AS_ROOT) ./bench/soak

# Runs each fuzz target for FUZZTIME.
fuzz:
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || :); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

# Writes the pages that are made from the code.
GENERATED := docs/config.md docs/metrics.md docs/policy.md
docs:
	go run ./internal/config/gen >docs/config.md.new
	mv docs/config.md.new docs/config.md
	go run ./cmd/sluice docs docs

servers:
	@deploy/install-test-servers.sh

build/tools/%: internal/tools/go.mod internal/tools/go.sum $(wildcard internal/tools/*/*.go)
	cd internal/tools && go build -o ../../$@ $(if $(filter staticcheck,$*),honnef.co/go/tools/cmd/staticcheck,./$*)

clean:
	rm -rf build
