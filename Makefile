# The commands of this project. `make demo` and `make test` install what they need by apt, cargo and npm.

# The server to build for, install into and test on.
PG_MAJOR  ?= 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config

# `make test` runs on 15 and 18, and on 16 and 17 where PG16_CONFIG or PG17_CONFIG says where one is. Debian 12 has no 18:
# unless PG18_CONFIG says where one is, it is built from Debian's source, once.
PG15_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
PG18_CONFIG ?= $(shell scripts/postgres 18)

# The version that PG_CONFIG is of, once it is there.
PG         = pg$(shell $(PG_CONFIG) --version 2>/dev/null | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
FEATURES   = --no-default-features --features $(PG)
WITH_FAULT = --no-default-features --features "$(PG) fault"
SUDO       = $(if $(filter 0,$(shell id -u)),,sudo)

export PG_CONFIG
export PGRX_HOME = $(CURDIR)/target/pgrx
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup install demo test test-15 test-16 test-17 test-18 test-one pg-test cluster-test fault-build torture bench lint fmt clean

help:
	@echo "make demo      build, and show an example in a throwaway cluster"
	@echo "make test      run every test, on PostgreSQL 15 and 18"
	@echo "make test-one  run every test on the server of PG_CONFIG=$(PG_CONFIG)"
	@echo "make torture   kill everything that can be killed, for ten minutes (TORTURE_SECONDS), and count"
	@echo "make bench     measure, beside other queues; ONLY=\"latency wal\" for some of it"
	@echo "make install   install into the server of PG_CONFIG=$(PG_CONFIG)"
	@echo "make lint      formatting, clippy, rustdoc, layers of imports, pgspot"
	@echo "make fmt       format"

setup:
	@scripts/setup

# Not by `cargo pgrx install`, which writes over a library that a running server has mapped.
install: setup
	rm -rf target/package/$(PG)
	cargo pgrx package --pg-config "$(PG_CONFIG)" --out-dir target/package/$(PG) $(FEATURES)
	scripts/install target/package/$(PG)

demo: install
	@scripts/demo

test: lint test-15 $(if $(PG16_CONFIG),test-16) $(if $(PG17_CONFIG),test-17) test-18

test-15:
	@$(MAKE) test-one PG_CONFIG=$(PG15_CONFIG)

test-16 test-17:
	@$(MAKE) test-one PG_CONFIG=$(PG$(@:test-%=%)_CONFIG)

# pg_upgrade goes from 15 to 18, so both need the extension.
test-18:
	@$(MAKE) install PG_CONFIG=$(PG15_CONFIG)
	@UPGRADE_FROM=$(PG15_CONFIG) $(MAKE) test-one PG_CONFIG=$(PG18_CONFIG)

test-one: pg-test cluster-test

# Tests beside the code, each in a transaction of a server that pgrx runs.
pg-test: setup
	scripts/pg-test $(PG)

# Tests of processes, in throwaway clusters. The scripts of former versions are there for the tests of upgrades.
cluster-test: install fault-build
	@scripts/peers
	$(SUDO) install -m 644 sql/frozen/*.sql "$$($(PG_CONFIG) --sharedir)/extension/"
	cargo test --locked -p kongtask-tests -- --test-threads 2

# The library with fault points, which no server has installed: tests put it into a copy of one.
fault-build: setup
	cargo pgrx package --debug --pg-config "$(PG_CONFIG)" --out-dir target/fault/$(PG) $(WITH_FAULT)

TORTURE_SECONDS ?= 600

torture: install
	TORTURE_SECONDS=$(TORTURE_SECONDS) cargo test --locked -p kongtask-tests --test torture

# Each measure is run ROUNDS times (3), with SCALE times as many jobs (1).
bench: install
	@scripts/bench-peers
	cargo run --locked --release -p kongtask-bench -- $(ONLY)

lint: setup
	scripts/layers
	scripts/pgspot
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(FEATURES) --workspace -- -D warnings
	cargo clippy --locked $(WITH_FAULT) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items $(FEATURES)

fmt:
	cargo fmt --all

clean:
	cargo clean
