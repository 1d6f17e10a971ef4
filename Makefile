# The entry points. `make help` lists them; CARGO_TARGET_DIR is respected.

TARGET := $(or $(CARGO_TARGET_DIR),target)
MASKING ?= ../shared/masking
DEMO := .demo

.DEFAULT_GOAL := help
.PHONY: help demo test check leakcheck bench soak fidelity clean prerequisites

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make demo CHECK=1                 play the story only; fails if a step did not go as told'
	@echo '  make demo STAY=1                  skip the story and stay up'
	@echo '  make leakcheck CASES=F CONTROLS=F MASKING=DIR ONLY="ID-OR-GROUP ..."'
	@echo '  make bench ROUNDS=3 SECONDS=5 ONLY="prepared wide" PEERS="PgBouncer policies" BEFORE=BINARY'
	@echo '  make soak SECONDS=600 CLIENTS=100 DEBUG=1'
	@echo '  make fidelity ONLY="pipeline regression" TLS=1 SCHEDULE=FILE PROXIED=1'

prerequisites:
	@tests/prerequisites.sh

demo: prerequisites ## Start a clinic behind Chaperone, play the story, stay up until Ctrl-C
	@echo 'building Chaperone (minutes the first time, seconds later)'
	cargo build -p chaperone -p chaperone-demo -p chaperone-test-support
	@exec env CHECK='$(CHECK)' STAY='$(STAY)' '$(TARGET)/debug/demo'

check: prerequisites ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: check ## Everything: lints, all tests, a slice of PostgreSQL's own, the demo's story
	cargo test --workspace
	@tests/prerequisites.sh bison flex make perl
	@if tests/fidelity/fetch.sh '$(TARGET)/fidelity' >/dev/null; then \
	    $(MAKE) fidelity ONLY=regression SCHEDULE=tests/fidelity/slice PROXIED=1 TLS=1; \
	else \
	    echo "make test: LEFT OUT: PostgreSQL's own tests, whose source could not be fetched" >&2; \
	fi
	$(MAKE) demo CHECK=1 STAY=

leakcheck: ## Attacks on masking, judged by an outside script
	@tests/prerequisites.sh python3
	cargo build -p chaperone -p chaperone-leakcheck
	@'$(TARGET)/debug/leakcheck' --masking '$(MASKING)' \
	    $(if $(CASES),--cases '$(CASES)') $(if $(CONTROLS),--controls '$(CONTROLS)') \
	    $(if $(JSON),--json '$(JSON)') $(if $(ONLY),--only $(ONLY))

bench: ## Throughput and CPU against direct PostgreSQL, PgBouncer and a bare relay
	@tests/prerequisites.sh pgbouncer
	cargo build --release -p chaperone -p chaperone-bench
	@'$(TARGET)/release/bench' --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),5) \
	    $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) \
	    $(if $(BEFORE),--before $(BEFORE))

soak: ## Many clients, reloads and approvals for ten minutes: errors, memory, evidence
	cargo build $(if $(DEBUG),,--release) -p chaperone -p chaperone-soak
	@'$(TARGET)/$(if $(DEBUG),debug,release)/soak' \
	    --seconds $(or $(SECONDS),600) --clients $(or $(CLIENTS),100)

SUITES := $(or $(ONLY),pipeline drivers asyncpg psycopg regression isolation postgresql18)
OF_POSTGRES := $(filter pipeline regression isolation,$(SUITES))
OF_DRIVERS := $(filter drivers postgresql18,$(SUITES))
OF_PYTHON := $(filter asyncpg psycopg,$(SUITES))
OF_18 := $(filter postgresql18,$(SUITES))
OF_THIS_VERSION := $(filter-out postgresql18,$(SUITES))
FIDELITY = '$(TARGET)/debug/fidelity' --drivers '$(TARGET)/drivers' --python '$(TARGET)/fidelity/python' \
    $(if $(TLS),--tls)

fidelity: ## PostgreSQL's own suites and drivers, direct and through Chaperone, and what differs
	@tests/prerequisites.sh $(if $(OF_POSTGRES),bison flex make perl) $(if $(OF_PYTHON),python3) \
	    $(if $(OF_DRIVERS),python3 node=nodejs npm javac=default-jdk-headless)
	cargo build --workspace --bin chaperone --bin fidelity
	$(if $(OF_DRIVERS),@tests/drivers/install.sh '$(TARGET)/drivers')
	$(if $(OF_PYTHON),@PSYCOPG='$(PSYCOPG)' tests/fidelity/python.sh '$(TARGET)/fidelity/python')
	@failed=0; \
	$(if $(OF_THIS_VERSION),$(FIDELITY) --only $(OF_THIS_VERSION) \
	    $(if $(OF_POSTGRES),--source "$$(tests/fidelity/fetch.sh '$(TARGET)/fidelity')") \
	    --output '$(TARGET)/fidelity/results' \
	    $(if $(SCHEDULE),--schedule '$(SCHEDULE)') $(if $(PROXIED),--proxied-only) || failed=1;) \
	$(if $(OF_18),PATH="$$(tests/fidelity/eighteen.sh '$(TARGET)/fidelity/postgresql-18'):$$PATH"; export PATH; \
	    $(FIDELITY) --only drivers --output '$(TARGET)/fidelity/results-18' || failed=1; \
	    CHAPERONE_TEST_WITHOUT_TLS=1 cargo test --workspace --test clients || failed=1;) \
	exit $$failed

clean: ## Remove everything that was built or left by the demo
	cargo clean
	rm -rf $(DEMO)
