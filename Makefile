# Every target does its own set-up, into ${TAILRACE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/tailrace}, and says step i of n.
# It needs Python 3.11 or newer; `test` and `bench` also a C compiler for the hot modules, and Java 17, Maven and Go to
# build the servers they run against, and `test` Chromium (as root it installs it with apt-get).

.DEFAULT_GOAL := help
.PHONY: help demo test faults asan check audit bench format
ARGS ?=
BENCH ?= compare

# The checkout's own code runs, not an installed copy: the environment holds dependencies only (.ci/environment.py).
export PYTHONPATH := $(CURDIR)
export PYTHONNOUSERSITE := 1

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo '  ARGS="..." is passed on, as in: make demo ARGS="--seconds 20 --json", make test ARGS="tests/schemas -k ids"'

demo:  ## See it work: an embedded broker, generated traffic, every role, a live table (Python is enough)
	@python=$$(.ci/environment demo 1/2) \
	&& echo '[2/2] tailrace demo $(ARGS)' >&2 \
	&& exec "$$python" -m pipeline.cli demo $(ARGS)

test:  ## Run all tests, on a real Kafka, Elasticsearch, Jaeger and Prometheus (first time: builds them, ten minutes)
	@python=$$(.ci/environment dev 1/5) \
	&& compiled=$$("$$python" .ci/compiled.py 2/5) \
	&& echo '[3/5] servers for the tests' >&2 \
	&& "$$python" -m tests.services.install \
	&& echo '[4/5] pytest $(ARGS)' >&2 \
	&& PYTHONPATH="$$compiled:$$PYTHONPATH" "$$python" -m pytest -m 'not uncompiled' $(ARGS) \
	&& if $(if $(strip $(ARGS)),false,true); then echo '[5/5] pytest of what was compiled, uncompiled' >&2; \
	     exec "$$python" -m pytest -m 'not compiled' tests/schemas tests/processors; fi

faults:  ## Faults from seeds on real servers, then a check against the truth (ARGS="--seed 7", "--seeds 1..50")
	@python=$$(.ci/environment dev 1/4) \
	&& compiled=$$("$$python" .ci/compiled.py 2/4) \
	&& echo '[3/4] servers for the runs' >&2 \
	&& "$$python" -m tests.services.install kafka jaeger elasticsearch prometheus \
	&& echo '[4/4] tests.faults $(ARGS)' >&2 \
	&& PYTHONPATH="$$compiled:$$PYTHONPATH" exec "$$python" -m tests.faults $(ARGS)

asan:  ## Run the tests of the hot modules, compiled with the address sanitizer (needs gcc)
	@python=$$(.ci/environment dev 1/3) \
	&& compiled=$$(CFLAGS='-fsanitize=address -fno-omit-frame-pointer -g' "$$python" .ci/compiled.py 2/3) \
	&& echo '[3/3] pytest $(ARGS)' >&2 \
	&& LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 \
	   PYTHONMALLOC=malloc PYTHONPATH="$$compiled:$$PYTHONPATH" exec "$$python" -m pytest -m 'not uncompiled' \
	   --deselect tests/schemas/formats/test_json_logs.py::test_entries_cost_no_thousand_times_their_bytes \
	   $(or $(ARGS),tests/schemas tests/processors tests/simulation/test_simulation.py)

check:  ## Lint, format, types, the direction of imports, known vulnerabilities if PyPI answers (no servers)
	@python=$$(.ci/environment dev 1/6) && status=0 \
	&& { echo '[2/6] ruff check' >&2; "$$python" -m ruff check . || status=1; \
	     echo '[3/6] ruff format --check' >&2; "$$python" -m ruff format --check . || status=1; \
	     echo '[4/6] mypy --strict' >&2; "$$python" -m mypy || status=1; \
	     echo '[5/6] import-linter' >&2; \
	     "$$python" -c 'from importlinter.cli import lint_imports_command as run; run()' || status=1; \
	     (audit=$$(.ci/environment audit 6/6) || exit 3; exec "$$audit" .ci/audit.py) || [ $$? -eq 3 ] || status=1; \
	     exit $$status; }

audit:  ## Look up what Tailrace needs in PyPI's advisories; fails if one is vulnerable or cannot be looked up
	@python=$$(.ci/environment audit 1/1) && exec "$$python" .ci/audit.py

bench:  ## Measure, on real servers, beside the OpenTelemetry Collector (BENCH=throughput: the whole way alone)
	@python=$$(.ci/environment dev 1/4) \
	&& compiled=$$("$$python" .ci/compiled.py 2/4) \
	&& echo '[3/4] servers for the benchmark' >&2 \
	&& "$$python" -m tests.services.install kafka jaeger elasticsearch prometheus collector \
	&& echo '[4/4] bench.$(BENCH) $(ARGS)' >&2 \
	&& PYTHONPATH="$$compiled:$$PYTHONPATH" exec "$$python" -m bench.$(BENCH) $(ARGS)

format:  ## Format the code and fix what the linter can fix
	@python=$$(.ci/environment dev 1/2) \
	&& echo '[2/2] ruff' >&2 \
	&& "$$python" -m ruff check --fix . && "$$python" -m ruff format .
