# coverage: counts which lines and branches the tests execute (make coverage), by clang's counters in the source.
# Proves: that a line or one side of a branch was never executed, so that no test can have checked it.
# Does not prove: that an executed line was checked.
# Four builds, because no build has all of the source: the white-box tests link `coverage` and `coverage-asan`; the two
# preload libraries with the switches that users get are `coverage-release` and `coverage-checked`. ci/coverage.mk has
# their rules.
# %c: the counters lie in the file itself, so that a process counts that is killed or ends by _exit(), and a forked child;
# %m: one file per program.
coverage_CC       := clang-14
coverage_CXX      := clang++-14
coverage_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
coverage_LDFLAGS  := -fprofile-instr-generate
coverage_ENV      :=
coverage_WRAP     :=
coverage_KINDS    := unit api
# $(call coverage_counters,NAME)
coverage_counters = -O2 -fno-omit-frame-pointer -Qunused-arguments -fcoverage-mapping -mllvm -runtime-counter-relocation \
                    -fprofile-update=atomic -fprofile-instr-generate=$(CURDIR)/build/coverage/raw/$(1)-%c%m
coverage_FLAGS   := $(call coverage_counters,coverage)

COVERAGE_PRELOAD := coverage-release coverage-checked
CONFIGS          += $(COVERAGE_PRELOAD)
$(foreach c,$(COVERAGE_PRELOAD),$(eval $(c)_CC := clang-14))
$(foreach c,$(COVERAGE_PRELOAD),$(eval $(c)_CXX := clang++-14))
$(foreach c,$(COVERAGE_PRELOAD),$(eval $(c)_FLAGS := $(call coverage_counters,$(c))))
coverage-release_SWITCHES = $(release_SWITCHES)
coverage-checked_SWITCHES = $(checked_SWITCHES)
