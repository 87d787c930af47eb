# The deterministic scheduler (fuzz/sched/README.md). The allocator's objects become one whose calls of the C library go
# to world.c, and whose static variables lie in sections that world.c saves and puts back.

SCHED_CONFIGS := sched schedasan schedtsan schedfuzz
SCHED_CALLS   := mmap munmap mremap madvise mprotect syscall pthread_self pthread_key_create pthread_key_delete \
                 pthread_getspecific pthread_setspecific abort
SCHED_ENGINE  := sched fibers threads world strategy

define sched_rules
# Not seen by ThreadSanitizer: the turn, and what is handed on with it.
build/$(1)/sched/%.o: fuzz/sched/%.c build/$(1)/flags fuzz/sched/sched.mk
	@mkdir -p $$(@D)
	$$(QUIET)$$(filter-out -fsanitize=thread,$$($(1)_COMPILE_TEST)) $$(WARN_C) -MMD -MP -c -o $$@ $$<
build/$(1)/sched/kernels.o build/$(1)/sched/planted.o: build/$(1)/sched/%.o: fuzz/sched/%.c build/$(1)/flags fuzz/sched/sched.mk
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_TEST) $$(WARN_C) -MMD -MP -c -o $$@ $$<

build/$(1)/sched/world-hakmem.o: $$($(1)_OBJ) fuzz/sched/sched.mk
	@mkdir -p $$(@D)
	$$(QUIET)ld -r -o $$@.tmp $$($(1)_OBJ) && objcopy $$(foreach s,$$(SCHED_CALLS),--redefine-sym $$(s)=world_$$(s)) \
	--rename-section .bss=hak_bss $$(foreach s,.data .data.rel .data.rel.local,--rename-section $$(s)=hak_data) $$@.tmp $$@ && rm $$@.tmp

build/$(1)/sched/sched: build/$(1)/sched/kernels.o
build/$(1)/sched/sched-planted: build/$(1)/sched/planted.o
build/$(1)/sched/sched build/$(1)/sched/sched-planted: $$(SCHED_ENGINE:%=build/$(1)/sched/%.o) build/$(1)/sched/main.o \
                                                       build/$(1)/sched/world-hakmem.o
	$$(QUIET)$$($(1)_CXX) $$($(1)_FLAGS) -o $$@ $$^ $$($(1)_LDFLAGS) -pthread

-include $$(wildcard build/$(1)/sched/*.d)
endef
$(foreach c,$(SCHED_CONFIGS),$(eval $(call sched_rules,$(c))))

# ---- the fuzz target -----------------------------------------------------------------------------------------------

# $(call sched_fuzz,CONFIG,FILES OF fuzz/,ENGINE'S FLAG)
define sched_fuzz
$(2:%=build/$(1)/sched/%.o): build/$(1)/sched/%.o: fuzz/%.c build/$(1)/flags fuzz/sched/sched.mk
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_TEST) $$(WARN_C) -MMD -MP -c -o $$@ $$<
build/$(1)/fuzz/fuzz_schedule: $(addprefix build/$(1)/sched/,fuzz_schedule.o world-hakmem.o $(SCHED_ENGINE:%=%.o) $(2:%=%.o))
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_CXX) $$($(1)_FLAGS) -o $$@ $$^ $$($(1)_LDFLAGS) $(3) -pthread
endef
$(foreach c,sched schedasan schedtsan,$(eval $(call sched_fuzz,$(c),ops model apply driver)))
$(eval $(call sched_fuzz,schedfuzz,ops model apply mutate,-fsanitize=fuzzer))

# Where `make fuzz` looks for it.
build/fuzz/fuzz/fuzz_schedule: build/schedfuzz/fuzz/fuzz_schedule
	@mkdir -p $(@D) && ln -sf ../../../$< $@

# ---- tests: what `make test` runs in a minute, and `make sched-test` in some minutes -----------------------------

# $(call sched_script,CONFIG,NAME,ARGUMENTS)
define sched_script
build/t/$(1)/$(2): build/$(1)/sched/sched ci/check.sh Makefile fuzz/sched/sched.mk
	$$(call script,$$(tsan_ENV),ci/check.sh "$(1): $(3)" build/$(1)/sched/sched $(3) --found build/$(1)/found)
endef
$(eval $(call sched_script,sched,one_preemption,exhaustive --bound 1))
$(eval $(call sched_script,sched,pct,pct --runs 500))
$(eval $(call sched_script,sched,late_push,exhaustive --bound 2 late_push_again))
$(eval $(call sched_script,sched,slab_records,exhaustive --bound 2 slab_records))
$(eval $(call sched_script,schedasan,random,random --runs 20))
$(eval $(call sched_script,schedtsan,one_preemption,exhaustive --bound 1))
$(eval $(call sched_script,sched,two_preemptions,exhaustive --bound 2))
$(eval $(call sched_script,sched,pct_deep,pct --runs 20000 --depth 4))
$(eval $(call sched_script,schedasan,pct_long,pct --runs 2000))
$(eval $(call sched_script,schedtsan,pct_long,pct --runs 1000))

build/t/sched/planted: fuzz/sched/planted.bats build/sched/sched/sched-planted build/schedtsan/sched/sched-planted Makefile
	$(call script,,bats --tap $<)

# $(call sched_corpus,CONFIG): the corpus of fuzz_schedule, replayed
define sched_corpus
build/t/corpus-$(1)/fuzz_schedule: build/$(1)/fuzz/fuzz_schedule Makefile fuzz/sched/sched.mk
	$$(call script,$$(tsan_ENV),ci/check.sh "corpus of fuzz_schedule in $(1)" $$< corpus/fuzz_schedule)
endef
$(foreach c,sched schedasan schedtsan,$(eval $(call sched_corpus,$(c))))
TESTS_MORE  += $(foreach c,sched schedasan schedtsan,build/t/corpus-$(c)/fuzz_schedule)

TESTS_MORE  += $(addprefix build/t/,sched/planted sched/one_preemption sched/late_push sched/slab_records sched/pct schedasan/random schedtsan/one_preemption)
SCHED_TESTS := $(addprefix build/t/,sched/planted sched/two_preemptions sched/pct_deep schedasan/pct_long schedtsan/pct_long)
sched-test: $(SCHED_TESTS)  ## every schedule of the concurrent kernels up to two preemptions, and many deeper ones
	@$(call prove,$(SCHED_TESTS))
.PHONY: sched-test
