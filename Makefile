# What a newcomer and CI call; both use one build profile, so the dependencies are compiled once.
# CARGO_TARGET_DIR is respected.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench fmt clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Real e-mails → simulated tenant → run → local lake → "who sent this file, and to whom?"
	cargo build --locked --bin waybill
	@tests/demo.sh

test: ## Everything that a fresh machine can run: unit tests, the promises, other people's clients
	tests/clients/setup
	cargo test --locked --lib --bins --test it

lint: ## Format, clippy with warnings as errors, spelling where `typos` is installed
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@if command -v typos >/dev/null; then typos; else echo 'lint: spelling not checked, typos is not installed'; fi

bench: ## Digests against OpenSSL, the run against this machine's limits, the search against DuckDB, the lake as it grows (release build, takes a while)
	cargo bench --locked --bench digests --bench records --bench limits --bench memory --bench storage --bench queries --bench analysts --bench growth

fmt: ## Formats the code
	cargo fmt

clean: ## Removes what was built and the demo's lake
	cargo clean
	rm -rf demo-lake
