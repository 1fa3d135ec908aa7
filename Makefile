# The commands of this project. `make demo` and `make test` install what they need by apt and cargo.

PG_MAJOR  ?= 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config

# The version that PG_CONFIG is of, once it is there.
PG         = pg$(shell $(PG_CONFIG) --version 2>/dev/null | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
FEATURES   = --no-default-features --features $(PG)
SUDO       = $(if $(filter 0,$(shell id -u)),,sudo)

export PG_CONFIG
export PGRX_HOME = $(CURDIR)/target/pgrx
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup install demo test pg-test cluster-test bench lint fmt doc clean

help:
	@echo "make demo      build, and show an example in a throwaway cluster"
	@echo "make test      run every test"
	@echo "make bench     measure (in throwaway clusters)"
	@echo "make install   install into the server of PG_CONFIG=$(PG_CONFIG)"
	@echo "make lint      formatting, clippy, rustdoc"
	@echo "make fmt       format"

setup:
	@scripts/setup

# With sudo, where needed, for the copying only.
install: setup
	cargo pgrx install --release --pg-config "$(PG_CONFIG)" $(FEATURES) $(if $(SUDO),--sudo)

demo: install
	@scripts/demo

test: lint pg-test cluster-test

# Tests beside the code, each in a transaction of a server that pgrx runs.
pg-test: setup
	scripts/pg-test $(PG)

# Tests of processes, in throwaway clusters.
cluster-test: install
	cargo test --locked -p kongtask-tests -- --test-threads 2

bench: install
	cargo bench --locked -p kongtask-tests

lint: setup
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(FEATURES) --workspace -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items $(FEATURES)

fmt:
	cargo fmt --all

clean:
	cargo clean
