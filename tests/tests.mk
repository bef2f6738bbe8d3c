# Everything about testing. Included by the Makefile at the top.

FUZZ_SECONDS ?= 60
# Unit tests that start threads run under the thread sanitizer too.
THREADED     := $(filter test_queue test_backend test_log test_rate test_clients,$(UNITS))
THREADED_E2E := balance control flows names operation queue shared
# End-to-end tests wait more than they work: a few at a time.
E2E_JOBS     ?= 4
PYTEST       := $(PYTHON) -m pytest -p no:cacheprovider -q -rs -n $(E2E_JOBS)

test: deps-test
	@$(MAKE) --no-print-directory -j2 WERROR=1 build/asan/weir build/asan/weirctl build/release/weir build/release/bench/bare_tls build/tsan/weir build/tsan/weirctl
	@$(MAKE) --no-print-directory -j2 WERROR=1 build/release/sim/sim
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory -j2 WERROR=1 $(UNITS:%=build/asan/unit/%) $(FUZZERS:%=build/asan/replay/%) $(THREADED:%=build/tsan/unit/%)
	@$(MAKE) --no-print-directory -j2 check check-threads-and-sim
	@$(MAKE) --no-print-directory e2e
	@$(MAKE) --no-print-directory e2e-threads
	@echo "make test: all passed"

# Unit tests, dialog tables and the replayed fuzz corpus, under address and undefined-behaviour sanitizers.
check: $(UNITS:%=build/asan/unit/%) $(FUZZERS:%=build/asan/replay/%)
	@set -e; for t in $(UNITS); do tests/quiet.sh $$t build/asan/unit/$$t; done
	@set -e; for f in $(FUZZERS); do build/asan/replay/$$f tests/fuzz/corpus/$$f; done

# Threads: the same unit tests that start threads, under the thread sanitizer.
check-threads: $(THREADED:%=build/tsan/unit/%)
	@set -e; for t in $(THREADED); do tests/quiet.sh "$$t (threads)" build/tsan/unit/$$t; done
# One behind the other, to be beside `check`, which mostly waits.
check-threads-and-sim: check-threads build/release/sim/sim
	@tests/quiet.sh "sim --quick" build/release/sim/sim --quick

# Balancing, limits and health under the design's workload, in virtual time. SIM_ARGS="--log slow": one scenario.
sim: deps-test build/release/sim/sim
	@build/release/sim/sim $(SIM_ARGS)
.PHONY: sim

e2e: build/asan/weir build/asan/weirctl build/release/weir build/release/bench/bare_tls
	@echo "end to end"
	$(Q)WEIR=$(CURDIR)/build/asan/weir $(PYTEST) tests/e2e

# Workers, reload and the wait queue once more, under the thread sanitizer.
e2e-threads: build/tsan/weir build/tsan/weirctl
	@echo "end to end (threads)"
	$(Q)WEIR=$(CURDIR)/build/tsan/weir $(PYTEST) $(THREADED_E2E:%=tests/e2e/test_%.py)

scorecard: deps-test build/asan/weir build/asan/weirctl build/release/weir build/release/bench/bare_tls
	@WEIR=$(CURDIR)/build/asan/weir $(PYTHON) tests/e2e/scorecard.py

# libFuzzer needs clang; the sources are compiled once more with its instrumentation.
build/fuzz/%: tests/fuzz/%.c $(SOURCES)
	@mkdir -p $(@D)
	clang $(filter-out -MMD -MP,$(BASE)) -O1 -g -fsanitize=fuzzer,address,undefined -o $@ $< $(filter-out $(MAINS),$(SOURCES)) $(LIBS)
fuzz: deps-fuzz $(FUZZERS:%=build/fuzz/%)
	@set -e; for f in $(FUZZERS); do echo "fuzz $$f for $(FUZZ_SECONDS) s"; \
	  mkdir -p build/fuzz/new/$$f; \
	  build/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -max_len=8192 build/fuzz/new/$$f tests/fuzz/corpus/$$f; done

lint:
	@tests/lint.sh

# BENCH_ARGS="--quick --only weir,haproxy"; see tests/bench/bench.py --help.
bench: deps-bench build/release/weir $(addprefix build/release/bench/,bench_scan bare_pipe bare_tls tls_pipe)
	$(PYTHON) tests/bench/bench.py $(BENCH_ARGS)

# What checking a thousand relays costs.
bench-checks: deps-bench build/release/weir
	$(PYTHON) tests/bench/checks.py --calls

# What shared counts cost Redis.
bench-publishers: deps-test build/release/bench/bench_publishers
	build/release/bench/bench_publishers

demo: deps-demo
	@$(MAKE) -s -j2 build/release/weir
	@$(PYTHON) tests/demo/demo.py build/release/weir

.PHONY: test check check-threads check-threads-and-sim e2e e2e-threads scorecard fuzz lint bench bench-checks bench-publishers demo
