# Every command a person or CI uses. `make` alone lists them.
# RUST finds a toolchain that is recent enough and sets CARGO_TARGET_DIR (default ~/.cache/zixt/target).

SHELL := /bin/bash
.DEFAULT_GOAL := help
RUST := scripts/with-rust.sh

# Binaries of the appliance and its clients; the tests are not part of what runs.
RELEASE := cargo build --release --locked --workspace --exclude zixt-tests --bins

##@ Use
.PHONY: run
run: ## Install what is missing, build, and start a lab appliance on this machine (CUSTODY=tpm: its keys in a TPM simulator)
	scripts/install-deps.sh $(if $(filter tpm,$(CUSTODY)),--tpm,--run)
	$(RUST) $(RELEASE)
	ZIXT_CUSTODY=$(CUSTODY) $(RUST) scripts/run.sh

.PHONY: demo
demo: ## Hold a conversation, export its evidence, verify it, and see four forgeries refused
	scripts/install-deps.sh --run
	$(RUST) $(RELEASE)
	$(RUST) scripts/demo.sh

.PHONY: clean-data
clean-data: ## Delete the lab appliance's data (.zixt in this folder), not what was built
	rm -rf .zixt

##@ Develop
.PHONY: fmt
fmt: ## Format all sources
	$(RUST) cargo fmt --all

.PHONY: lint
lint: ## Formatting, clippy, the tests over the source, shellcheck and cargo-deny where installed
	scripts/install-deps.sh --test
	$(RUST) scripts/lint.sh

.PHONY: test
test: ## Everything CI checks: formatting, clippy, all tests with the end-to-end ones
	scripts/install-deps.sh --test
	$(RUST) scripts/test.sh

.PHONY: test-full
test-full: ## As test, with ten times the kills, thousands of seeds, and the measurements
	scripts/install-deps.sh --test
	ZIXT_TEST_FULL=1 $(RUST) scripts/test.sh
	$(MAKE) bench FULL=1

.PHONY: bench
bench: ## Measure, and write target/bench/report.json (FULL=1: longer, and bench/last-full.json too)
	scripts/install-deps.sh --test
	$(RUST) scripts/build-kryoptic.sh || echo "custody.native_over_token will not be measured"
	$(RUST) $(RELEASE)
	$(RUST) cargo build --release --locked -p zixt-hsm-pkcs11 --example native_rate
	$(RUST) cargo build --release --locked -p zixt-directory --example measure_sync
	$(RUST) cargo build --release --locked -p zixt-sso --bins --example corpora
	$(RUST) cargo run --release --locked -p zixt-tests --bin zixt-bench $(if $(FULL),-- --full)

.PHONY: help
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
