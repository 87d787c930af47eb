# The long form of the report's 4-thread stability, and the test of its programs.

RUNS         ?= 1000
SECONDS_EACH ?= 1
stability: $(REL)/bench/larson_hakmem  ## Larson with 4 threads, RUNS=1000 times SECONDS_EACH=1, two at a time
	@python3 bench/stability.py $(RUNS) $(SECONDS_EACH)

build/t/bats/bench_larson: $(BENCH_BIN)

.PHONY: stability
