# Planted defects: fuzz/mutants/run.sh does it all; here is what it needs to know of the build.

# Which (a regular expression for the name), how many at a time, and the seconds that one may take in all its checks.
MUTANT        ?=
MUTANT_JOBS   ?= 1
MUTANT_BUDGET ?= 900

mutants:        ## plant each defect of fuzz/mutants in a copy of the source: which check finds it, how fast; MUTANT=REGEX
	@ci/deps.sh test
	@MUTANT='$(MUTANT)' MUTANT_JOBS='$(MUTANT_JOBS)' MUTANT_BUDGET='$(MUTANT_BUDGET)' nice fuzz/mutants/run.sh

build/t/mutants/list: Makefile ci/check.sh
	$(call script,,ci/check.sh "every planted defect applies and names its check" fuzz/mutants/run.sh --check)
TESTS_MORE += build/t/mutants/list

# The scripts of one kind (build/t/KIND/) that take seconds, or all.
mutants-scripts:
	@printf '%s\n' $(filter build/t/$(if $(KIND),$(KIND)/)%,$(TESTS_SOAK) $(TESTS_MORE) $(if $(KIND),,$(SCHED_TESTS))) | awk '!seen[$$0]++'

# One script and all that it runs; without one, what shows whether the source compiles.
mutants-build: $(or $(CHECK),$(debug_OBJ)) $(if $(filter release checked bats,$(notdir $(patsubst %/,%,$(dir $(CHECK))))),$(SUPPORT_BIN) $(LIBS) $(HAKRUN))

.PHONY: mutants mutants-scripts mutants-build
