# make coverage (sanitizer/coverage.mk says what it proves): the white-box tests and the corpus in the coverage
# configurations, then the black-box tests and those shell-level tests that need no real program, with preload libraries
# that count. What any of the four builds executed is executed. ci/coverage.py prints the table and compares with
# ci/coverage-reasons.txt.

COV          := build/coverage
COV_WHITEBOX := coverage coverage-asan
COV_BUILDS   := $(COV_WHITEBOX) $(COVERAGE_PRELOAD)
COV_MAPPINGS := $(COV_BUILDS:%=$(COV)/mapping/%.so)
COV_LIBS     := $(addprefix $(COV)/preload/,libhakmem.so libhakmem-checked.so hakmem.o)
COV_LINK      = $(QUIET)mkdir -p $(@D) && clang-14 $(coverage_LDFLAGS)

$(COV)/preload/libhakmem.so: $(coverage-release_OBJ) src/hakmem.map Makefile
	$(COV_LINK) $(LDFLAGS_SO) -Wl,-soname,$(@F) -o $@ $(filter-out %/embedded.o,$(coverage-release_OBJ))
$(COV)/preload/libhakmem-checked.so: $(coverage-checked_OBJ) src/hakmem.map Makefile
	$(COV_LINK) $(LDFLAGS_SO) -Wl,-soname,$(@F) -o $@ $(filter-out %/embedded.o,$(coverage-checked_OBJ))
# Unlike build/release/hakmem.o not made local: the counters are found through hidden symbols.
$(COV)/preload/hakmem.o: $(coverage-release_OBJ) Makefile
	$(QUIET)mkdir -p $(@D) && ld -r -o $@ $(filter-out %/early.o,$(coverage-release_OBJ))
# All objects of a build, and nothing of a test: only to read the map from counters to source.
define coverage_mapping
$(COV)/mapping/$(1).so: $$($(1)_OBJ)
	$$(COV_LINK) $$($(1)_LDFLAGS) -shared -o $$@ $$($(1)_OBJ)
endef
$(foreach c,$(COV_BUILDS),$(eval $(call coverage_mapping,$(c))))

# The support programs of the release build, but the one that has hakmem inside.
$(COV)/support/life_embedded: tests/support/life_embedded.c $(COV)/preload/hakmem.o
	$(COV_LINK) $(CFLAGS_TEST) -O2 -Iinclude -shared -fPIC -Wl,-Bsymbolic -o $@ $^ -pthread
$(COV)/support/%: $(REL)/tests/support/% $(COV)/support/life_embedded
	$(QUIET)ln -f $< $@
COV_SUPPORT := $(SUPPORT:%=$(COV)/support/%)

# Programs with hakmem linked in.
$(COV)/static/%: tests/support/%.c $(COV)/preload/hakmem.o
	$(COV_LINK) $(CFLAGS_TEST) -O2 -Iinclude -static -o $@ $^ -pthread
build/t/coverage-static/%: $(COV)/static/%
	$(call script,LLVM_PROFILE_FILE="$$PWD/$(COV)/raw/coverage-release-%c%p",ci/check.sh "$* linked statically" $<)
COV_STATIC := build/t/coverage-static/life_linked

# A program's file has the counters from the first process that ran it, and of later ones those from main() on. Where the
# start is what is tested, each process has a file of its own.
COV_STARTS := blackbox_os_calls blackbox_first_call blackbox_first_malloc stats
# $(call cov_env,BUILD,TEST)
cov_env = $(COV_ENV) $(if $(filter $(2),$(COV_STARTS)),LLVM_PROFILE_FILE="$$PWD/$(COV)/raw/$(1)-%c%p")
COV_ENV = HAK_BUILD="$$PWD/$(COV)/preload" HAK_SUPPORT="$$PWD/$(COV)/support"
build/t/coverage-release/%: $(REL)/tests/% $(COV)/preload/libhakmem.so
	$(call script,CMOCKA_MESSAGE_OUTPUT=TAP $(call cov_env,coverage-release,$*) HAK_LIB="$$PWD/$(COV)/preload/libhakmem.so" HAK_EXPECT=default,env LD_PRELOAD="$$PWD/$(COV)/preload/libhakmem.so" $<)
build/t/coverage-checked/%: $(REL)/tests/% $(COV)/preload/libhakmem-checked.so
	$(call script,CMOCKA_MESSAGE_OUTPUT=TAP $(call cov_env,coverage-checked,$*) HAK_LIB="$$PWD/$(COV)/preload/libhakmem-checked.so" HAK_EXPECT=checked,env LD_PRELOAD="$$PWD/$(COV)/preload/libhakmem-checked.so" $<)
build/t/coverage-bats/%: tests/%.bats
	$(call script,$(call cov_env,coverage-release,$*),bats --tap $<)

# The corpus, replayed as in other configurations: fuzz/fuzz.mk.
$(foreach c,$(COV_WHITEBOX),$(eval $(call fuzz_rules,$(c))))
$(foreach c,$(COV_WHITEBOX),$(foreach t,$(FUZZ_TARGETS),\
  $(eval $(call fuzz_link,$(c),$(t),driver $(filter-out mutate,$($(t)_WITH))))$(eval $(call corpus_script,$(c),$(t)))))
COV_CORPUS := $(foreach t,$(FUZZ_TARGETS),$(if $(wildcard corpus/$(t)/*),$(COV_WHITEBOX:%=build/t/corpus-%/$(t))))

COV_BATS  := startup stats dlopen_embedded
# Too slow where every byte that the checked library looks at is counted; in the release library they run.
COV_SLOW  := $(addprefix build/t/coverage-checked/blackbox_,exchange producer_consumer million alignment sizes)
COV_TESTS := $(foreach c,$(COV_WHITEBOX),$(call tests_of,$(c))) $(call only,$(COV_CORPUS) $(COV_STATIC) $(COV_BATS:%=build/t/coverage-bats/%) \
             $(filter-out $(COV_SLOW),$(foreach c,$(COVERAGE_PRELOAD),$(BLACKBOX:%=build/t/$(c)/%))))

coverage:       ## lines and branches of src/ that no test executes, each with its reason; HTML in build/coverage/html
	@ci/deps.sh test
	@rm -rf $(COV)/raw && mkdir -p $(COV)/raw
	@$(MAKE) coverage-run
	@ci/coverage.sh $(COV)

coverage-run: $(COV_TESTS) $(COV_LIBS) $(COV_MAPPINGS) $(COV_SUPPORT)
	@$(call prove,$(COV_TESTS))

.PHONY: coverage-run
