# The variants of `make phase7`: the release library without, with one and with all of the three build switches that are
# 1 everywhere else. Each is a configuration of its own; its library is build/phase7/<name>/libhakmem.so.

PHASE7_VARIANTS := none region-lookup aggressive-inline prewarm-tls all
PHASE7_LIBS     := $(PHASE7_VARIANTS:%=build/phase7/%/libhakmem.so)

phase7/none_SWITCHES              := HAK_REGION_LOOKUP=0 HAK_AGGRESSIVE_INLINE=0 HAK_PREWARM_TLS=0
phase7/region-lookup_SWITCHES     := HAK_AGGRESSIVE_INLINE=0 HAK_PREWARM_TLS=0
phase7/aggressive-inline_SWITCHES := HAK_REGION_LOOKUP=0 HAK_PREWARM_TLS=0
phase7/prewarm-tls_SWITCHES       := HAK_REGION_LOOKUP=0 HAK_AGGRESSIVE_INLINE=0
phase7/all_SWITCHES               :=

define phase7_rules
phase7/$(1)_CC    := gcc
phase7/$(1)_CXX   := g++
phase7/$(1)_FLAGS := $(release_FLAGS)
$(call config_rules,phase7/$(1))
build/phase7/$(1)/libhakmem.so: $$(phase7/$(1)_OBJ) src/hakmem.map Makefile
	$$(QUIET)gcc $$(LDFLAGS_SO) -Wl,-soname,$$(@F) -o $$@ $$(filter-out %/embedded.o,$$(phase7/$(1)_OBJ))
build/t/phase7-$(1)/%: $$(REL)/tests/% build/phase7/$(1)/libhakmem.so Makefile bench/phase7.mk
	$$(call script,CMOCKA_MESSAGE_OUTPUT=TAP HAK_LIB="$$$$HAK_ROOT/build/phase7/$(1)/libhakmem.so" HAK_EXPECT=default,env LD_PRELOAD="$$$$HAK_ROOT/build/phase7/$(1)/libhakmem.so" $$<)
endef
$(foreach v,$(PHASE7_VARIANTS),$(eval $(call phase7_rules,$(v))))

phase7: $(PHASE7_LIBS) $(REL)/bench/random_mixed $(REL)/bench/larson  ## what each of the tasks of Phase 7 gains, and all: a table, and build/phase7/*.tsv
	@ci/deps.sh bench
	@python3 bench/report/phase7.py build/phase7

# ---- tests: a variant may be slower, and nothing else -------------------------------------------------------------------

# The white-box tests link a debug build that lacks two: they count what pre-warm fills. tests/variant_*.c are for it alone.
phase7/debug_CC       := $(debug_CC)
phase7/debug_CXX      := $(debug_CXX)
phase7/debug_FLAGS    := $(debug_FLAGS)
phase7/debug_SWITCHES := $(debug_SWITCHES) $(phase7/prewarm-tls_SWITCHES)
$(eval $(call config_rules,phase7/debug))
build/t/phase7-debug/%: build/phase7/debug/tests/% Makefile bench/phase7.mk
	$(call script,CMOCKA_MESSAGE_OUTPUT=TAP,$<)

PHASE7_VARIANT_TESTS := $(patsubst tests/%.c,build/t/phase7-debug/%,$(wildcard tests/variant_*.c))
# Those of `make test`: what a wrong lookup or a hit out of line could break.
TESTS_MORE += $(PHASE7_VARIANT_TESTS) \
              $(addprefix build/t/phase7-none/blackbox_,double_free exchange foreign invalid_free million prewarm thread_exit)

PHASE7_TESTS := $(foreach v,$(PHASE7_VARIANTS),$(BLACKBOX:%=build/t/phase7-$(v)/%)) \
                $(PHASE7_VARIANT_TESTS) $(UNIT:%=build/t/phase7-debug/%) $(API:%=build/t/phase7-debug/%)
PHASE7_TESTS_CHOSEN := $(if $(ONLY),$(foreach t,$(PHASE7_TESTS),$(if $(findstring $(ONLY),$(t)),$(t))),$(PHASE7_TESTS))
phase7-test: $(PHASE7_TESTS_CHOSEN) $(SUPPORT_BIN)  ## the tests with the variants of `make phase7`; ONLY=phase7-none/
	@$(call prove,$(PHASE7_TESTS_CHOSEN))

.PHONY: phase7 phase7-test
