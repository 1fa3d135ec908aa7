# The commands of this project. `make demo` and `make test` fetch what they need by apt, cargo, npm and pip; of the others, only
# those named setup do.

# The server to build for, install into and test on.
PG_MAJOR  ?= 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config

# `make test` runs on 15 and 18, and on 16 and 17 where PG16_CONFIG or PG17_CONFIG says where one is. Debian 12 has no 18:
# unless PG18_CONFIG says where one is, it is built from Debian's source, once.
PG15_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
PG18_CONFIG ?= $(shell scripts/postgres 18)

# The version that PG_CONFIG is of, once it is there.
PG       = pg$(shell $(PG_CONFIG) --version 2>/dev/null | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
FEATURES = --no-default-features --features $(PG)
SUDO     = $(if $(filter 0,$(shell id -u)),,sudo)

# `make build PROFILE=dev` builds faster, a slower library.
PROFILE ?= release
PACKAGE  = target/package/$(PG)-$(PROFILE)
SOURCES  = $(wildcard Cargo.toml Cargo.lock .cargo/config.toml kongtask.control LICENSE scripts/install scripts/stage scripts/script) \
           $(shell find src sql -name '*.rs' -o -name '*.sql')
VERSION  = $(shell scripts/version)

.DEFAULT_GOAL = build

export PG_CONFIG PREFIX DESTDIR
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
export PGRX_HOME = $(CURDIR)/target/pgrx
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup setup-test setup-dashboard setup-browser build install uninstall package demo dashboard dashboard-test \
        test test-15 test-16 test-17 test-18 test-one pg-test cluster-test fault-build models torture torture-schedules bench \
        bench-page lint licences fmt clean many-databases failover pgbouncer-clients deb deb-test setup-deb pgxn reference docs \
        installcheck

help:
	@echo "make demo      build, and show an example in a throwaway cluster; fetches what it needs"
	@echo "make dashboard  build the dashboard, and serve it on the demo's cluster: 10 minutes once, as SQLPage is built"
	@echo "make setup     fetch what building needs, by apt"
	@echo "make           build for the server of PG_CONFIG=$(PG_CONFIG)"
	@echo "make install   install what is built into that server, or into lib and share under PREFIX; honours DESTDIR"
	@echo "make uninstall take it away again"
	@echo "make package   a tarball to install from on a server without a toolchain"
	@echo "make deb       packages for Debian; make deb-test tries them in a bare Debian"
	@echo "make pgxn      the distribution for PGXN"
	@echo "make test      run every test, on PostgreSQL 15 and 18; fetches what it needs"
	@echo "make test-one  run every test on the server of PG_CONFIG"
	@echo "make installcheck  run the tests in SQL on the server that PG* variables name"
	@echo "make dashboard-test  test the dashboard in a browser; DASHBOARD_JOBS=1000000 for a full table"
	@echo "make models    check the protocols of shared memory in every order of steps"
	@echo "make torture   kill everything that can be killed, for ten minutes (TORTURE_SECONDS), and count"
	@echo "make torture-schedules  the same for schedules beside graphile-worker's crontab, for five minutes (SCHEDULE_SECONDS)"
	@echo "make failover  lose the primary of Patroni's cluster ten times (FAILOVERS), under load, and count"
	@echo "make pgbouncer-clients  1000 external workers behind PgBouncer (PGBOUNCER_CLIENTS)"
	@echo "make many-databases  300 databases of one server (KONGTASK_DATABASES), idle, and 140 of them with jobs"
	@echo "make bench     measure, beside other queues; ONLY=\"latency wal\" for some of it"
	@echo "make bench-page  docs/benchmarks.md, from what that found"
	@echo "make lint      formatting, clippy, rustdoc, layers of imports, pgspot, licences"
	@echo "make docs      the documentation as a site: target/site; make reference makes its reference pages anew"
	@echo "make fmt       format"

setup:
	@scripts/setup build

setup-test:
	@scripts/setup test

setup-dashboard:
	@scripts/setup dashboard

setup-browser:
	@scripts/setup browser

build: $(PACKAGE)/kongtask.so

# A file, so that `sudo make install` after `make build` runs nothing but the installation.
$(PACKAGE)/kongtask.so: $(SOURCES)
	@scripts/build $(PROFILE) $(PACKAGE) $(FEATURES)

install: build
	@scripts/install $(PACKAGE)

uninstall:
	@scripts/install --uninstall

# The folder's own `install` puts it into the server of PG_CONFIG.
package: build
	@scripts/tarball $(PACKAGE) kongtask-$(VERSION)-$(PG)-$(shell uname -m)

# By a make of its own, as the server is known only once it is there.
demo: setup
	@$(MAKE) --no-print-directory install
	@scripts/demo

# By a make of its own, as for the demo.
dashboard: setup-dashboard
	@scripts/sqlpage
	@MAKE="$(MAKE)" scripts/dashboard

# Not part of `make test`, for the minutes that building SQLPage takes. There, the SQL of all pages is run (tests/dashboard).
dashboard-test: setup-browser install
	@scripts/sqlpage
	@scripts/browser
	DASHBOARD_JOBS=$(DASHBOARD_JOBS) cargo test --locked -p kongtask-tests --test dashboard -- --ignored --test-threads 1

DASHBOARD_JOBS ?= 20000

test: setup-test lint models test-15 $(if $(PG16_CONFIG),test-16) $(if $(PG17_CONFIG),test-17) test-18

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
pg-test: setup-test
	scripts/pg-test $(PG)

# Most of a test's time is waiting, so two cores bear more than two at a time: of so many binaries, so many tests.
TEST_BINARIES ?= 2
TEST_THREADS  ?= 3

# Tests of processes, in throwaway clusters. The scripts of former versions are there for the tests of upgrades.
cluster-test: setup-test install fault-build
	@scripts/peers
	@scripts/prometheus
	@scripts/patroni
	$(SUDO) install -m 644 sql/frozen/*.sql "$$($(PG_CONFIG) --sharedir)/extension/"
	TEST_BINARIES=$(TEST_BINARIES) scripts/cluster-tests --test-threads $(TEST_THREADS)

# The library with fault points, which no server has installed: tests put it into a copy of one.
fault-build:
	@scripts/build dev target/fault/$(PG) --no-default-features --features "$(PG) fault"

# The protocols of shared memory, in every order of steps: needs no server.
models:
	cargo test --locked -p kongtask-models

TORTURE_SECONDS ?= 600

torture: setup-test install
	TORTURE_SECONDS=$(TORTURE_SECONDS) cargo test --locked -p kongtask-tests --test torture

SCHEDULE_SECONDS ?= 300

# The server and graphile-worker's process on one crontab, both killed at random.
torture-schedules: setup-test install
	@scripts/peers
	SCHEDULE_SECONDS=$(SCHEDULE_SECONDS) cargo test --locked -p kongtask-tests --test schedules whatever_is_killed

KONGTASK_DATABASES ?= 300

many-databases: setup-test install
	KONGTASK_DATABASES=$(KONGTASK_DATABASES) cargo test --locked -p kongtask-tests --test processes many_databases -- --nocapture --test-threads 1

FAILOVERS ?= 10

# Three nodes of Debian's Patroni; `make test` loses the primary twice.
failover: setup-test install
	FAILOVERS=$(FAILOVERS) cargo test --locked -p kongtask-tests --test failover

PGBOUNCER_CLIENTS ?= 1000
PGBOUNCER_JOBS    ?= 20000

pgbouncer-clients: setup-test install
	PGBOUNCER_CLIENTS=$(PGBOUNCER_CLIENTS) PGBOUNCER_JOBS=$(PGBOUNCER_JOBS) \
	  cargo test --locked -p kongtask-tests --test pgbouncer hundreds_of_clients

# Each measure is run ROUNDS times (3), with SCALE times as many jobs (1). The program itself only watches: it is not optimised.
bench: setup-test install
	@scripts/bench-peers
	cargo run --locked -p kongtask-bench -- $(ONLY)

# docs/benchmarks.md, its plots and the figures of README.md, from what the last `make bench` found.
bench-page:
	cargo run --locked -p kongtask-bench -- page

lint: setup-test licences
	scripts/layers
	scripts/pgspot
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(FEATURES) --workspace -- -D warnings
	cargo clippy --locked --no-default-features --features "$(PG) fault" -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items $(FEATURES)

licences:
	scripts/licences

# Of the versions of PostgreSQL whose development files are here. With postgresql-server-dev-all, debhelper and lintian.
deb:
	scripts/deb "$$(scripts/deb-source)"

deb-test:
	$(SUDO) scripts/deb-test "$$(scripts/deb-source)" "$(PG18_CONFIG)" "$$(rustc --print sysroot)"

setup-deb:
	@scripts/setup deb

pgxn:
	@scripts/pgxn

# docs/reference, of the comments of the extension that is installed. The part of a page that is written by hand is kept.
reference: install
	KONGTASK_WRITE_REFERENCE=1 cargo test --locked -p kongtask-tests --test reference_pages

# The documentation as a site: target/site/index.html.
docs:
	@scripts/docs


# The tests in SQL, on any running server that has the extension installed and preloaded, as PGHOST, PGPORT and PGUSER say.
installcheck:
	@scripts/installcheck

fmt:
	cargo fmt --all

clean:
	cargo clean
