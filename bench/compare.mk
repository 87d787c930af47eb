# Comparing allocators: bench/README.md.
#   BENCH   workloads, by name, group or beginning of a name    ALLOC   allocators, by name or path
#   ROUNDS  how often each is run                               BENCH_PEERS (environment)   libraries beside the usual ones
# $(call bench_run,DIRECTORY,WORKLOADS)
bench_run = bench/run.py --out $(1) $(if $(2),--bench '$(2)') $(if $(ALLOC),--alloc '$(ALLOC)') \
            $(if $(ROUNDS),--rounds '$(ROUNDS)')

bench:          ## compare allocators, into build/bench; parts by BENCH=larson,real ALLOC=hakmem,/a/library.so ROUNDS=9
	@ci/deps.sh bench
	@$(MAKE) libs bench-build
	@$(call bench_run,build/bench,$(BENCH))

bench-growth:   ## cost of an operation against live heap, threads, sizes and remote frees, into build/bench/growth
	@ci/deps.sh bench
	@$(MAKE) libs bench-build
	@$(call bench_run,build/bench/growth,growth)

bench-results:  ## all of both into bench/results, and from there into docs/PERFORMANCE.md and README.md (hours); BENCH=real: a part anew
	@ci/deps.sh bench
	@$(MAKE) libs bench-build
	@$(call bench_run,bench/results,$(or $(BENCH),all)) $(if $(BENCH),--add)
	@bench/performance.py

.PHONY: bench bench-growth bench-results
