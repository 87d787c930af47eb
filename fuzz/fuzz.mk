# The fuzz targets, fuzz/fuzz_*.c: each is built once per configuration with driver.c, which replays files, and for
# libFuzzer in the configurations fuzz, fuzztsan and fuzzubsan. README.md says how to run them and how to add one.

FUZZ_TARGETS := $(sort $(basename $(notdir $(wildcard fuzz/fuzz_*.c))))
# A first line `/* fuzz: ops model ... */` names the files of fuzz/ that a target is linked with.
fuzz_with     = $(shell sed -n '1s|^/\* fuzz: \(.*\) \*/$$|\1|p' fuzz/$(1).c)
$(foreach t,$(FUZZ_TARGETS),$(eval $(t)_WITH := $(call fuzz_with,$(t))))

# Where the corpus is replayed: every target in each of these, as far as the tool can judge it.
REPLAY_CONFIGS := debug strict asan tsan msan ubsan valgrind
ENGINE_CONFIGS := fuzz fuzztsan fuzzubsan
AFL_CONFIGS    := afl aflasan aflcmplog
# Threads and forks are nothing for Memcheck's one thread at a time; what a planted misuse does is nothing for tsan,
# msan and Memcheck to judge.
fuzz_misuse_IN := debug strict asan ubsan
fuzz_threads_IN := debug strict asan tsan msan ubsan
# What the stores hand out is closed to Memcheck until the router opens it.
$(foreach t,bigcache l25 superslab tcache,$(eval fuzz_$(t)_IN := debug strict asan tsan msan ubsan))
# $(call replayed_in,TARGET)
replayed_in = $(or $($(1)_IN),$(REPLAY_CONFIGS))

# $(call fuzz_rules,CONFIGURATION)
define fuzz_rules
build/$(1)/fuzz/obj/%.o: fuzz/%.c build/$(1)/flags
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_TEST) $$(WARN_C) -Ifuzz -MMD -MP -c -o $$@ $$<
-include $$(wildcard build/$(1)/fuzz/obj/*.d)
endef
$(foreach c,$(REPLAY_CONFIGS) $(ENGINE_CONFIGS) $(AFL_CONFIGS),$(eval $(call fuzz_rules,$(c))))

# $(call fuzz_link,CONFIGURATION,TARGET,WITH): `mutate` is for engines only.
define fuzz_link
build/$(1)/fuzz/$(2): $(patsubst %,build/$(1)/fuzz/obj/%.o,$(2) $(3)) $$($(1)_OBJ)
	$$(QUIET)$$($(1)_CXX) $$($(1)_FLAGS) -o $$@ $$^ $$($(1)_LDFLAGS) $$(if $$(filter $(1),$(ENGINE_CONFIGS) $(AFL_CONFIGS)),-fsanitize=fuzzer) -pthread
endef
$(foreach t,$(FUZZ_TARGETS),\
  $(foreach c,$(REPLAY_CONFIGS),$(eval $(call fuzz_link,$(c),$(t),driver $(filter-out mutate,$($(t)_WITH)))))\
  $(foreach c,$(ENGINE_CONFIGS),$(eval $(call fuzz_link,$(c),$(t),$($(t)_WITH))))\
  $(foreach c,$(AFL_CONFIGS),$(eval $(call fuzz_link,$(c),$(t),$(filter-out mutate,$($(t)_WITH))))))

build/debug/fuzz/show: build/debug/fuzz/obj/show.o build/debug/fuzz/obj/ops.o
	$(QUIET)gcc -o $@ $^

# Preloaded under a program, it makes an input of what the program asks of malloc.
$(REL)/fuzz/record.so: fuzz/record.c fuzz/ops.c fuzz/ops.h fuzz/fuzz.mk
	@mkdir -p $(@D)
	$(QUIET)gcc -shared -fPIC -fvisibility=hidden $(CFLAGS_TEST) $(WARN_C) -O2 -Ifuzz -o $@ $(filter %.c,$^) -ldl -pthread

# ---- the corpus, replayed: part of `make test` ----------------------------------------------------------------------

# build/t/corpus-CONFIGURATION/TARGET
define corpus_script
build/t/corpus-$(1)/$(2): build/$(1)/fuzz/$(2) Makefile fuzz/fuzz.mk
	$$(call script,$$($(1)_ENV),ci/check.sh "corpus of $(2) in $(1)" $$($(1)_WRAP) $$< corpus/$(2))
endef
$(foreach t,$(FUZZ_TARGETS),$(foreach c,$(call replayed_in,$(t)),$(eval $(call corpus_script,$(c),$(t)))))
TESTS_CORPUS := $(foreach t,$(FUZZ_TARGETS),$(if $(wildcard corpus/$(t)/*),$(foreach c,$(call replayed_in,$(t)),build/t/corpus-$(c)/$(t))))
TESTS_MORE += $(TESTS_CORPUS)

TESTS_CORPUS_CHOSEN := $(if $(ONLY),$(foreach t,$(TESTS_CORPUS),$(if $(findstring $(ONLY),$(t)),$(t))),$(TESTS_CORPUS))
corpus-test: $(TESTS_CORPUS_CHOSEN)  ## replay every file of corpus/ in every configuration; ONLY=fuzz_api
	@$(call prove,$(TESTS_CORPUS_CHOSEN))

# ---- fuzzing --------------------------------------------------------------------------------------------------------

TARGET    ?=
FUZZ_TIME ?= 60
ENGINE    ?= libfuzzer
SANITIZER ?= asan
FUZZ_CONFIG_asan  := fuzz
FUZZ_CONFIG_tsan  := fuzztsan
FUZZ_CONFIG_ubsan := fuzzubsan
FUZZ_CONFIG := $(or $(FUZZ_CONFIG_$(SANITIZER)),fuzz)
# fuzz_schedule is built by fuzz/sched/sched.mk, for ASan only: fibers are nothing for TSan.
FUZZ_ALL    := $(FUZZ_TARGETS) $(if $(filter fuzz,$(FUZZ_CONFIG)),fuzz_schedule)
FUZZ_CHOSEN := $(if $(TARGET),$(filter $(TARGET),$(FUZZ_ALL)),$(FUZZ_ALL))

fuzz: fuzz-$(ENGINE)  ## fuzz all targets, FUZZ_TIME=60 seconds each; TARGET=, ENGINE=libfuzzer|afl, SANITIZER=asan|tsan|ubsan

fuzz-libfuzzer: $(FUZZ_CHOSEN:%=build/$(FUZZ_CONFIG)/fuzz/%) build/debug/fuzz/show
	@$(if $(FUZZ_CONFIG_$(SANITIZER)),,echo "SANITIZER is asan, tsan or ubsan, not '$(SANITIZER)'" >&2; exit 2;) \
	$(if $(FUZZ_CHOSEN),,echo "no fuzz target is called '$(TARGET)'; there are: $(FUZZ_ALL)" >&2; exit 2;) \
	FUZZ_TIME='$(FUZZ_TIME)' CONFIG=$(FUZZ_CONFIG) ENVIRONMENT='$($(FUZZ_CONFIG)_ENV)' fuzz/run.sh $(FUZZ_CHOSEN)

# AFL++ loads the mutator as a library.
build/afl/fuzz/mutate.so: fuzz/mutate_afl.c fuzz/mutate.c fuzz/ops.c fuzz/ops.h fuzz/fuzz.mk
	@mkdir -p $(@D)
	$(QUIET)gcc -shared -fPIC -fvisibility=hidden $(CFLAGS_TEST) $(WARN_C) -O2 -Ifuzz -o $@ $(filter %.c,$^)

# fuzz_schedule has a build of its own.
AFL_CHOSEN := $(filter-out fuzz_schedule,$(FUZZ_CHOSEN))
fuzz-afl:       ## fuzz with AFL++: a main and a secondary instance with ASan, persistent; FUZZ_TIME=, TARGET=
	@ci/deps.sh fuzz
	@$(MAKE) fuzz-afl-installed

fuzz-afl-installed: $(foreach c,$(AFL_CONFIGS) asan,$(AFL_CHOSEN:%=build/$(c)/fuzz/%)) build/afl/fuzz/mutate.so
	@FUZZ_TIME='$(FUZZ_TIME)' fuzz/afl.sh $(AFL_CHOSEN)

fuzz-build: $(foreach t,$(FUZZ_TARGETS),$(foreach c,$(call replayed_in,$(t)) $(ENGINE_CONFIGS),build/$(c)/fuzz/$(t))) build/debug/fuzz/show

.PHONY: corpus-test fuzz fuzz-libfuzzer fuzz-afl fuzz-afl-installed fuzz-build
