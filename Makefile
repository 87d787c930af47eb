# hakmem: everything is built and checked from here, with plain GNU make. `make help` lists the targets.
#
# Each configuration is one file, sanitizer/<name>.mk, and has its outputs under build/<name>/. Sources are found by
# wildcard: a new .c file needs no line here.

.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq (0,$(MAKELEVEL))
MAKEFLAGS += -j$(shell nproc)
endif

PREFIX  ?= /usr/local
DESTDIR ?=
# Extra arguments for prove, for instance PROVE_ARGS=-v; how many test files run at a time; and only the tests whose
# script (build/t/<configuration>/<test>) has these letters in its name: make test ONLY=tsan/
PROVE_ARGS ?=
TEST_JOBS  ?= $(shell nproc)
ONLY       ?=

all: libs       ## the libraries libhakmem.so, libhakmem-checked.so, libhakmem.a, hakmem.o, and hakrun (default)

# ---- sources ------------------------------------------------------------------------------------------------------

CONFIGS := $(basename $(notdir $(wildcard sanitizer/*.mk)))
include $(wildcard sanitizer/*.mk)

SRC_C       := $(sort $(wildcard src/*/*.c))
SRC_CC      := $(sort $(wildcard src/*/*.cc))
BLACKBOX    := $(basename $(notdir $(wildcard tests/blackbox_*.c tests/blackbox_*.cc)))
UNIT        := $(basename $(notdir $(wildcard tests/unit_*.c)))
API         := $(basename $(notdir $(wildcard tests/api_*.c)))
BATS        := $(basename $(notdir $(wildcard tests/*.bats)))
SUPPORT     := $(basename $(notdir $(wildcard tests/support/*.c tests/support/*.cc)))
BENCH_NAMES := $(basename $(notdir $(wildcard bench/*.c bench/*.cc)))
VERSION     := $(shell awk '/define HAKMEM_VERSION_M|define HAKMEM_VERSION_P/ { v = v s $$3; s = "." } END { print v }' include/hakmem.h)

# ---- flags --------------------------------------------------------------------------------------------------------

# Every switch is always defined, 0 or 1; a configuration names those that differ from 0, or of the second list from 1.
SWITCHES := HAK_CHECKED HAK_DEBUG HAK_ASAN HAK_TSAN HAK_MSAN HAK_VALGRIND HAK_TEST HAK_SCHED
SWITCHES_ON := HAK_REGION_LOOKUP HAK_AGGRESSIVE_INLINE HAK_PREWARM_TLS
switches  = $(foreach s,$(SWITCHES),-D$(s)=$(if $(filter $(s)=1,$($(1)_SWITCHES)),1,0)) \
            $(foreach s,$(SWITCHES_ON),-D$(s)=$(if $(filter $(s)=0,$($(1)_SWITCHES)),0,1))

CPPFLAGS_ALL := -Iinclude -Isrc
WARN         := -Wall -Wextra -Wundef -Wvla -Wshadow
WARN_C       := -Wmissing-prototypes -Wstrict-prototypes
# The compiler must not know what malloc means: it would turn malloc and memset inside calloc into calloc.
NO_BUILTINS  := $(addprefix -fno-builtin-,malloc calloc realloc reallocarray free aligned_alloc posix_memalign \
                memalign valloc pvalloc malloc_usable_size)
CODEGEN      := -g -fPIC -ftls-model=initial-exec -fvisibility=hidden -fno-semantic-interposition -fno-plt $(NO_BUILTINS)
# Exceptions are on: operator new throws, and passes on what a new_handler throws, also through a function in C.
CFLAGS_LIB   := -std=c11 -D_GNU_SOURCE= -fexceptions $(CODEGEN) $(WARN) $(WARN_C) -Wconversion
CXXFLAGS_LIB := -std=c++17 $(CODEGEN) $(WARN) -Wconversion \
                -fno-threadsafe-statics
# The library must load into programs without a C++ runtime: what it wants of one is weak.
CXX_RUNTIME_WEAK := -w $(addprefix --weaken-symbol=,__cxa_* __gxx_* _Unwind_* _ZSt* _ZNS* _ZNKS* _ZTI* _ZTV*)
LDFLAGS_SO   := -shared -Wl,-z,nodelete -Wl,-z,now -Wl,-z,relro -Wl,-z,defs -Wl,-z,noexecstack \
                -Wl,--version-script=src/hakmem.map
# Tests call what they test for real: no compiler may remove a malloc whose result is unused.
CFLAGS_TEST  := -std=c11 -D_GNU_SOURCE= -g -fno-builtin $(WARN) -Itests
CXXFLAGS_TEST := -std=c++17 -fsized-deallocation -g -fno-builtin $(WARN) -Itests

# ---- one set of rules per configuration ---------------------------------------------------------------------------

# A change of flags rebuilds: objects depend on a file that holds them and changes only when they do.
define config_rules
$(1)_OBJ := $$(SRC_C:%.c=build/$(1)/obj/%.o) $$(SRC_CC:%.cc=build/$(1)/obj/%.cc.o)
$(1)_COMPILE_C  := $$($(1)_CC) $$(CPPFLAGS_ALL) $$(call switches,$(1)) $$(CFLAGS_LIB) $$($(1)_FLAGS)
$(1)_COMPILE_CC := $$($(1)_CXX) $$(CPPFLAGS_ALL) $$(call switches,$(1)) $$(CXXFLAGS_LIB) $$($(1)_FLAGS)
$(1)_COMPILE_TEST := $$($(1)_CC) $$(CPPFLAGS_ALL) $$(call switches,$(1)) $$(CFLAGS_TEST) $$($(1)_FLAGS)

build/$(1)/flags: FORCE | build/$(1)/
	@echo '$$($(1)_COMPILE_C) $$($(1)_COMPILE_CC) $$($(1)_COMPILE_TEST)' | cmp -s - $$@ || \
	 echo '$$($(1)_COMPILE_C) $$($(1)_COMPILE_CC) $$($(1)_COMPILE_TEST)' >$$@

build/$(1)/obj/%.o: %.c build/$(1)/flags
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_C) -MMD -MP -c -o $$@ $$<

build/$(1)/obj/%.cc.o: %.cc build/$(1)/flags
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_CC) -MMD -MP -c -o $$@ $$< && objcopy $$(CXX_RUNTIME_WEAK) $$@

# White-box and prefixed-interface tests link the objects themselves: an archive would leave some out.
build/$(1)/tests/%: tests/%.c $$($(1)_OBJ) build/$(1)/flags
	@mkdir -p $$(@D)
	$$(QUIET)$$($(1)_COMPILE_TEST) -MMD -MP -MF $$@.d -MT $$@ -o $$@ $$< $$($(1)_OBJ) $$($(1)_LDFLAGS) -pthread -lcmocka

build/$(1)/: ; @mkdir -p $$@

-include $$($(1)_OBJ:.o=.d)
-include $$(wildcard build/$(1)/tests/*.d)
endef

FORCE:
QUIET = $(if $(V),,@echo '  $(@:build/%=%)' && )
$(foreach c,$(CONFIGS),$(eval $(call config_rules,$(c))))

# ---- the libraries ------------------------------------------------------------------------------------------------

REL  := build/release
LIBS := $(addprefix $(REL)/,libhakmem.so libhakmem-checked.so libhakmem.a hakmem.o)
HAKRUN := $(REL)/tools/hakrun
libs: $(LIBS) $(HAKRUN)   ## the same as all

$(REL)/libhakmem.so: $(release_OBJ) src/hakmem.map Makefile
	$(QUIET)gcc $(LDFLAGS_SO) -Wl,-soname,$(@F) -o $@ $(filter-out %/embedded.o,$(release_OBJ))

$(REL)/libhakmem-checked.so: $(checked_OBJ) src/hakmem.map Makefile | $(REL)/
	$(QUIET)gcc $(LDFLAGS_SO) -Wl,-soname,$(@F) -o $@ $(filter-out %/embedded.o,$(checked_OBJ))

# One object for linking: what is hidden becomes local, so that only the public names can collide with a program's.
$(REL)/hakmem.o: $(release_OBJ) Makefile
	$(QUIET)ld -r --force-group-allocation -o $@.tmp $(filter-out %/early.o,$(release_OBJ)) && objcopy --localize-hidden $@.tmp $@ && rm $@.tmp

$(REL)/libhakmem.a: $(REL)/hakmem.o
	$(QUIET)rm -f $@ && ar rcs $@ $<

# ---- programs -----------------------------------------------------------------------------------------------------

$(HAKRUN): $(wildcard tools/runner/*.c) tools/runner/runner.h Makefile | $(REL)/tools/
	$(QUIET)gcc -std=c11 -O2 -g $(WARN) $(WARN_C) -Wconversion -o $@ $(filter %.c,$^)
$(REL)/tools/: ; @mkdir -p $@

# ---- tests --------------------------------------------------------------------------------------------------------

# tests/blackbox_*.c  plain programs, run with each preload library   tests/support/*  programs that tests start
# tests/unit_*.c      white-box, linked with the configuration's objects
# tests/api_*.c       use only hakmem.h, linked likewise              tests/*.bats     shell-level tests
# A first line `/* build: FLAGS */` in a black-box test, support program or bench adds FLAGS to its build: ci/compile.sh.

$(REL)/tests/blackbox_%: tests/blackbox_%.c ci/compile.sh | $(REL)/tests/
	$(QUIET)ci/compile.sh gcc $< $@ $(CFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -lcmocka -pthread -ldl
$(REL)/tests/blackbox_%: tests/blackbox_%.cc ci/compile.sh | $(REL)/tests/
	$(QUIET)ci/compile.sh g++ $< $@ $(CXXFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -lcmocka -pthread -ldl
$(REL)/tests/support/%: tests/support/%.c ci/compile.sh $(LIBS) | $(REL)/tests/support/
	$(QUIET)ci/compile.sh gcc $< $@ $(CFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -pthread -ldl
$(REL)/tests/support/%: tests/support/%.cc ci/compile.sh $(LIBS) | $(REL)/tests/support/
	$(QUIET)ci/compile.sh g++ $< $@ $(CXXFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -pthread -ldl
$(REL)/bench/%: bench/%.c ci/compile.sh | $(REL)/bench/
	$(QUIET)ci/compile.sh gcc $< $@ $(CFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -pthread -ldl -lm
$(REL)/bench/%: bench/%.cc ci/compile.sh | $(REL)/bench/
	$(QUIET)ci/compile.sh g++ $< $@ $(CXXFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -pthread -ldl -lm
# Two programs of one source: linked with hakmem, and as it is.
$(REL)/bench/%_hakmem: bench/%.c $(REL)/hakmem.o ci/compile.sh | $(REL)/bench/
	$(QUIET)ci/compile.sh gcc $< $@ $(CFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- $(REL)/hakmem.o -pthread -ldl -lm
$(REL)/bench/%_system: bench/%.c ci/compile.sh | $(REL)/bench/
	$(QUIET)ci/compile.sh gcc $< $@ $(CFLAGS_TEST) -O2 -Iinclude -MMD -MP -MF $@.d -- -pthread -ldl -lm
$(REL)/bench/traces/%: bench/traces/%.zst | $(REL)/bench/traces/
	$(QUIET)zstd -d -q -f -o $@ $<
# Programs that are linked with the library's objects and take the place of some of their calls.
BENCH_INSIDE := $(addprefix $(REL)/bench/,l25_record sim_shards)
$(BENCH_INSIDE): WRAPPED = hak_lock hak_lock_try hak_unlock hak_sys_map hak_sys_unmap hak_sys_purge
$(REL)/bench/sim_shards: WRAPPED += hak_sys_now_ms pthread_getspecific pthread_setspecific
$(BENCH_INSIDE): $(REL)/bench/%: bench/%.c $(release_OBJ) ci/compile.sh | $(REL)/bench/
	$(QUIET)ci/compile.sh gcc $< $@ $(CPPFLAGS_ALL) $(call switches,release) $(CFLAGS_TEST) -O2 -MMD -MP -MF $@.d \
	-- $(filter-out %/early.o,$(release_OBJ)) $(WRAPPED:%=-Wl$(comma)--wrap=%) -pthread -lm
$(REL)/tests/ $(REL)/tests/support/ $(REL)/bench/ $(REL)/bench/traces/: ; @mkdir -p $@
-include $(wildcard $(REL)/tests/support/*.d $(REL)/bench/*.d)

SUPPORT_BIN := $(SUPPORT:%=$(REL)/tests/support/%)
BENCH_TWINS := $(filter $(BENCH_NAMES),larson random_mixed)
BENCH_BIN   := $(BENCH_NAMES:%=$(REL)/bench/%) $(BENCH_TWINS:%=$(REL)/bench/%_hakmem) $(BENCH_TWINS:%=$(REL)/bench/%_system) \
               $(patsubst %.zst,$(REL)/%,$(wildcard bench/traces/*.zst))
bench-build: $(BENCH_BIN)       ## the benchmark programs, into build/release/bench
build/t/bats/bench_workloads build/t/bats/bench_run: | $(BENCH_BIN)

# prove runs build/t/<configuration>/<test>: a one-line shell script each, also for running one test by hand. The time
# limit only ends what hangs.
TEST_ENV   := HAK_ROOT='$(CURDIR)' HAK_BUILD='$(CURDIR)/$(REL)' HAK_SUPPORT='$(CURDIR)/$(REL)/tests/support'
TIME_LIMIT ?= $(if $(HAK_SOAK),6h,15m)
LINTS      := include-law size atomics capacities gcc clang-14 clang-19 tidy format shellcheck disassembly symbols
# $(call script,ENV,COMMAND)
script = @mkdir -p $(@D); { echo '\#!/bin/sh'; echo "cd '$(CURDIR)' && unset MAKEFLAGS MFLAGS MAKELEVEL"; \
         echo "export $(TEST_ENV)"; echo 'exec env $(1) timeout -k 10 "$${HAK_TIME_LIMIT:-15m}" $(2)'; } >$@

build/t/release/%: $(REL)/tests/% $(REL)/libhakmem.so Makefile
	$(call script,CMOCKA_MESSAGE_OUTPUT=TAP HAK_LIB="$$HAK_BUILD/libhakmem.so" HAK_EXPECT=default,env LD_PRELOAD="$$HAK_BUILD/libhakmem.so" $<)
build/t/checked/%: $(REL)/tests/% $(REL)/libhakmem-checked.so Makefile
	$(call script,CMOCKA_MESSAGE_OUTPUT=TAP HAK_LIB="$$HAK_BUILD/libhakmem-checked.so" HAK_EXPECT=checked,env LD_PRELOAD="$$HAK_BUILD/libhakmem-checked.so" $<)
build/t/bats/%: tests/%.bats Makefile
	$(call script,,bats --tap $<)
build/t/bats/bigcache: $(addprefix $(REL)/bench/bigcache_,growth load record) build/valgrind/libhakmem-valgrind.so
build/t/bats/counts: $(REL)/bench/counts
build/t/bats/l25: $(addprefix $(REL)/bench/,l25_churn l25_record sim_shards)
build/t/lint/%: Makefile ci/check.sh
	$(call script,,ci/check.sh "lint: $*" make lint-$*)

define script_rules
build/t/$(1)/%: build/$(1)/tests/% sanitizer/$(1).mk Makefile
	$$(call script,CMOCKA_MESSAGE_OUTPUT=TAP $$($(1)_ENV),$$($(1)_WRAP) $$<)
endef
WHITEBOX_CONFIGS := $(foreach c,$(CONFIGS),$(if $($(c)_KINDS),$(c)))
$(foreach c,$(WHITEBOX_CONFIGS),$(eval $(call script_rules,$(c))))

# Variants to measure, fuzzing, schedules and what belongs to them. A file adds its test scripts to TESTS_MORE.
include $(wildcard bench/*.mk fuzz/*.mk fuzz/*/*.mk)

# $(call only,SCRIPTS)
only = $(if $(ONLY),$(foreach t,$(1),$(if $(findstring $(ONLY),$(t)),$(t))),$(1))
# $(call tests_of,CONFIG): the scripts of a configuration
tests_of = $(call only,$(addprefix build/t/$(1)/,$(if $(filter unit,$($(1)_KINDS)),$(UNIT)) $(if $(filter api,$($(1)_KINDS)),$(API))))
TESTS_BLACKBOX := $(call only,$(BLACKBOX:%=build/t/release/%) $(BLACKBOX:%=build/t/checked/%))
TESTS_BATS     := $(call only,$(BATS:%=build/t/bats/%))
TESTS_SOAK     := $(call tests_of,debug) $(TESTS_BLACKBOX) $(TESTS_BATS) \
                  $(foreach c,asan tsan msan ubsan valgrind,$(call tests_of,$(c)))
TESTS_LINT     := $(call only,$(LINTS:%=build/t/lint/%))
TESTS_ALL      := $(TESTS_SOAK) $(call only,$(TESTS_MORE)) $(TESTS_LINT)

# $(call prove,SCRIPTS)
prove = $(if $(strip $(1)),PERL5LIB=ci$${PERL5LIB:+:$$PERL5LIB} HAK_TIME_LIMIT=$(TIME_LIMIT) prove --formatter Tally \
        --timer --failures --comments -j $(TEST_JOBS) -e /bin/sh $(PROVE_ARGS) $(1) </dev/null,\
        echo "no test here has '$(ONLY)' in its name" >&2; exit 2)

test:           ## install what is missing, build and run every test; ends with `N passed, N failed`
	@ci/deps.sh test
	@$(MAKE) test-installed

test-installed: $(TESTS_ALL) $(SUPPORT_BIN) $(LIBS) $(HAKRUN)
	@$(call prove,$(TESTS_ALL))

soak:           ## the long forms of the same tests (hours)
	@ci/deps.sh test
	@HAK_SOAK=1 $(MAKE) soak-installed HAK_SOAK=1

soak-installed: $(TESTS_SOAK) $(SUPPORT_BIN) $(LIBS) $(HAKRUN)
	@$(call prove,$(TESTS_SOAK))

debug-test:     ## the white-box tests in the debug configuration
asan-test:      ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
tsan-test:      ## the tests under ThreadSanitizer
msan-test:      ## the tests under MemorySanitizer
ubsan-test:     ## the tests under UndefinedBehaviorSanitizer with integer conversion checks
valgrind-test:  ## the tests under Valgrind's Memcheck
define config_test
$(1)-test: $$(call tests_of,$(1))
	@$$(call prove,$$(call tests_of,$(1)))
endef
$(foreach c,$(WHITEBOX_CONFIGS),$(eval $(call config_test,$(c))))

blackbox-test: $(TESTS_BLACKBOX) $(SUPPORT_BIN) $(LIBS)  ## the black-box tests with both preload libraries
	@$(call prove,$(TESTS_BLACKBOX))

bats-test: $(TESTS_BATS) $(SUPPORT_BIN) $(LIBS) $(HAKRUN)  ## the shell-level tests
	@$(call prove,$(TESTS_BATS))

include ci/coverage.mk

# ---- lint ---------------------------------------------------------------------------------------------------------

# A check that holds for a file leaves build/lint/<check>/<file>.ok, so that only what changed is checked again.
PROGRAMS   := $(sort $(foreach d,tests tests/support bench fuzz fuzz/* tools/*,$(wildcard $(d)/*.c $(d)/*.cc)))
FORMATTED  := $(sort $(wildcard include/*.h $(foreach d,src/* tests tests/support bench fuzz fuzz/* tools/*,$(d)/*.c $(d)/*.cc $(d)/*.h)))
LINT_CONFIGS := release checked debug
LINT_WARN  := -O2 -Werror -Wframe-larger-than=1024 -MMD -MP
# $(call lint_compile,COMPILER,SOURCE,OUTPUT,CONFIGURATION): C++ with the C++ compiler of the same make
cxx_of = $(subst gcc,g++,$(subst clang,clang++,$(1)))
lint_compile = @mkdir -p $(dir $(3)) && $(if $(filter %.cc,$(2)),$(call cxx_of,$(1)) $(CXXFLAGS_LIB),$(1) $(CFLAGS_LIB)) \
               $(CPPFLAGS_ALL) $(call switches,$(4)) $(LINT_WARN) $(if $(findstring clang,$(1)),-Wthread-safety) \
               -MF $(3).d -MT $(3) -c -o $(3).o $(2) && rm $(3).o && touch $(3)
# What a program's own first line adds to its build, as far as it matters for warnings.
own_flags = $$(sed -n '1s|^/\* build: \(.*\) \*/$$|\1|p' $(1) | tr ' ' '\n' | grep -E '^-(D|I|std|Wno-)')

define lint_config_rules
build/lint/$(1)/$(2)/%.ok: % Makefile
	$$(call lint_compile,$(1),$$<,$$@,$(2))
endef
define lint_rules
$(foreach c,$(LINT_CONFIGS),$(eval $(call lint_config_rules,$(1),$(c))))
build/lint/$(1)/programs/%.ok: % Makefile
	@mkdir -p $$(@D) && $$(if $$(filter %.cc,$$<),$(call cxx_of,$(1)) $(CXXFLAGS_TEST),$(1) $(CFLAGS_TEST) $(WARN_C)) \
	$(CPPFLAGS_ALL) $(call switches,debug) -O2 -Werror -MMD -MP -MF $$@.d -MT $$@ $$(call own_flags,$$<) -c -o $$@.o $$< && rm $$@.o && touch $$@
lint-$(1): $$(foreach c,$(LINT_CONFIGS),$$(patsubst %,build/lint/$(1)/$$(c)/%.ok,$(SRC_C) $(SRC_CC))) \
           $$(PROGRAMS:%=build/lint/$(1)/programs/%.ok)
endef
$(foreach c,gcc clang-14 clang-19,$(eval $(call lint_rules,$(c))))
-include $(if $(filter lint%,$(MAKECMDGOALS)),$(shell find build/lint -name '*.d' 2>/dev/null))

# Both arms of every `if (HAK_X)` that matters alive, and assertions, from which the analyser learns what cannot be.
tidy_SWITCHES := HAK_CHECKED=1 HAK_DEBUG=1
build/lint/tidy/src/%.ok: src/% .clang-tidy $(wildcard src/*/*.h include/*.h)
	@mkdir -p $(@D) && clang-tidy-14 --quiet $< -- $(filter-out -g -fno-semantic-interposition,$(if $(filter %.cc,$<),$(CXXFLAGS_LIB),$(CFLAGS_LIB))) \
	$(CPPFLAGS_ALL) $(call switches,tidy) && touch $@
build/lint/tidy/tools/%.ok: tools/% .clang-tidy $(wildcard tools/*/*.h)
	@mkdir -p $(@D) && clang-tidy-14 --quiet --checks=-misc-no-recursion $< -- -std=c11 $(CPPFLAGS_ALL) && touch $@

lint-include-law:
	@awk -f tools/lint/include-law.awk $(wildcard src/*/*.h) $(SRC_C) $(SRC_CC)
lint-size:
	@tools/lint/size.sh
lint-atomics:
	@tools/lint/atomics.sh
lint-capacities:
	@tools/lint/capacities.sh
lint-tidy: $(patsubst %,build/lint/tidy/%.ok,$(SRC_C) $(SRC_CC) $(wildcard tools/*/*.c))
lint-format:
	@clang-format-14 --dry-run -Werror $(FORMATTED)
lint-shellcheck:
	@tools/lint/shellcheck.sh
lint-disassembly: libs
	@tools/lint/disassembly.py $(REL)/libhakmem.so $(REL)/libhakmem-checked.so
lint-symbols: libs
	@tools/lint/symbols.sh $(REL)

lint: $(TESTS_LINT)  ## every static check: layers, warnings, thread safety, tidy, format, shellcheck, machine code
	@$(call prove,$(TESTS_LINT))

format:         ## format the source in place
	@clang-format-14 -i $(FORMATTED)

figures:        ## lengths of functions and files, conditional directives, lines of headers
	@tools/lint/size.sh figures

# ---- programs, manual pages, installation -------------------------------------------------------------------------

run: ## install what is missing, build, and run real programs on hakmem: one table
	@ci/deps.sh run
	@$(MAKE) libs
	@tools/run-programs.sh

man:            ## the manual pages hakmem.3 and hakmem.7, into build/man
	@tools/man.sh build/man

$(REL)/hakmem.pc: hakmem.pc.in include/hakmem.h FORCE | $(REL)/
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' $< >$@

install: libs man $(REL)/hakmem.pc  ## install below $(DESTDIR)$(PREFIX)
	install -d '$(DESTDIR)$(PREFIX)/lib/pkgconfig' '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 $(REL)/libhakmem.so $(REL)/libhakmem-checked.so '$(DESTDIR)$(PREFIX)/lib'
	install -m 644 $(REL)/libhakmem.a $(REL)/hakmem.o '$(DESTDIR)$(PREFIX)/lib'
	install -m 644 $(REL)/hakmem.pc '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	install -m 644 include/hakmem.h '$(DESTDIR)$(PREFIX)/include'
	install -m 755 $(HAKRUN) '$(DESTDIR)$(PREFIX)/bin'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man3' '$(DESTDIR)$(PREFIX)/share/man/man7'
	install -m 644 build/man/hakmem.3 '$(DESTDIR)$(PREFIX)/share/man/man3'
	install -m 644 build/man/hakmem.7 '$(DESTDIR)$(PREFIX)/share/man/man7'

clean:          ## remove build/
	rm -rf build

help:           ## this list
	@awk -F ' *## ' '/^[a-z0-9-]+:.*## / { sub(/:.*/, "", $$1); printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: FORCE all libs bench-build test test-installed soak soak-installed blackbox-test bats-test coverage run man \
        install clean help lint format figures $(LINTS:%=lint-%) $(WHITEBOX_CONFIGS:%=%-test)
