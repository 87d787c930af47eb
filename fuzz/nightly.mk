# What the nightly campaign (ci/nightly.sh) and the report (tools/proof.sh) ask of the build, and the tests of faults.

# ---- the nightly campaign ------------------------------------------------------------------------------------------

# The parts of a night, one per line: KIND WEIGHT CONFIGURATION NAME ENVIRONMENT
#   fuzz     fuzz target NAME by libFuzzer           explore  build/CONFIGURATION/sched/sched NAME, fresh seeds
#   soak     the long forms of tests
# A part gets the share of the time that its weight is of all weights.
NIGHTLY_LEGS := $(foreach t,$(FUZZ_TARGETS),fuzz|2|fuzz|$(t)) fuzz|4|fuzztsan|fuzz_threads $(foreach t,api faults threads,fuzz|2|fuzzubsan|fuzz_$(t)) \
                fuzz|4|schedfuzz|fuzz_schedule \
                explore|3|sched|pct explore|1|sched|random explore|1|schedasan|random explore|2|schedtsan|pct soak|6|soak|long
space := $(subst ,, )
nightly-legs:
	@printf '%s\n' $(foreach l,$(NIGHTLY_LEGS),'$(subst |,$(space),$(l)) $(or $($(word 3,$(subst |, ,$(l)))_ENV),$(if $(filter explore|%,$(l)),$(tsan_ENV)))')

# Tests that know HAK_SOAK; the short form of the others would only be said again.
NIGHTLY_SOAK = $(foreach t,$(basename $(notdir $(shell grep -lE 'HAK_SOAK|api_soak|life_scale|\<rounds\>|load support/real' tests/*.c tests/*.cc tests/*.bats))),\
               $(filter %/$(t),$(filter-out build/t/valgrind/%,$(TESTS_SOAK))))
nightly-soak:
	@printf '%s\n' $(NIGHTLY_SOAK)

nightly-build: $(foreach l,$(filter fuzz|%,$(NIGHTLY_LEGS)),$(subst @,/fuzz/,build/$(word 3,$(subst |, ,$(l)))@$(word 4,$(subst |, ,$(l))))) \
               $(foreach l,$(filter explore|%,$(NIGHTLY_LEGS)),build/$(word 3,$(subst |, ,$(l)))/sched/sched) build/debug/fuzz/show

# Those of the night's tests that are run this time are built then: all would take a while.
nightly-test: $(CHECK) $(SUPPORT_BIN) $(LIBS) $(HAKRUN)

HOURS ?= 8
nightly:        ## the nightly campaign, HOURS=8: all targets and configurations; build/nightly/report.md
	@ci/deps.sh test
	@ci/nightly.sh $(HOURS)

# ---- faults --------------------------------------------------------------------------------------------------------

FAULT_CONFIGS := debug asan tsan msan ubsan
FAULT_TESTS := $(foreach t,faults refusals,$(foreach c,$(FAULT_CONFIGS),build/t/$(c)/unit_$(t))) build/t/release/blackbox_os_calls \
               build/t/checked/blackbox_os_calls $(foreach t,enomem rlimit,$(foreach c,release checked,build/t/$(c)/blackbox_$(t))) \
               $(filter build/t/corpus-%/fuzz_faults,$(TESTS_CORPUS))
fault-test: $(FAULT_TESTS) $(SUPPORT_BIN) $(LIBS)  ## every call of the system refused: the n-th, from the n-th on, at each place, by the corpus
	@$(call prove,$(FAULT_TESTS))

# ---- the report ----------------------------------------------------------------------------------------------------

proof: nightly-build build/t/release/blackbox_os_calls  ## docs/PROOF.md: figures from coverage, mutants, nightly, and short runs of the rest
	@tools/proof.sh

.PHONY: nightly nightly-legs nightly-soak nightly-build nightly-test fault-test proof
