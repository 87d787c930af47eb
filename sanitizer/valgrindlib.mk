# valgrindlib: the preload library with Valgrind's client requests, as build/valgrind/libhakmem-valgrind.so. As release,
# but that it tells Memcheck of each block and holds freed ones back.
# Proves: of an unmodified program, what Memcheck proves of one on its own malloc (docs/SANITIZERS.md).
# Does not prove: anything about the release library, which Memcheck takes as it is, seeing no blocks in it.
# To be run with --soname-synonyms=somalloc=nouserintercepts, or else Valgrind puts its own malloc in the place of hakmem's.
valgrindlib_CC       := gcc
valgrindlib_CXX      := g++
valgrindlib_SWITCHES := HAK_VALGRIND=1
valgrindlib_FLAGS    := -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls
valgrindlib_OBJECTS  := $(patsubst %,build/valgrindlib/obj/%.o,$(basename $(wildcard src/*/*.c)) $(wildcard src/*/*.cc))

build/t/bats/reports: build/valgrind/libhakmem-valgrind.so
valgrind-lib: build/valgrind/libhakmem-valgrind.so   ## build/valgrind/libhakmem-valgrind.so, for preloading under Memcheck

# No version script: it would hide __libc_freeres, which Valgrind calls (src/api/leaks.c).
build/valgrind/libhakmem-valgrind.so: $(filter-out %/embedded.o,$(valgrindlib_OBJECTS))
	@mkdir -p $(@D)
	$(QUIET)gcc $(filter-out -Wl$(comma)--version-script%,$(LDFLAGS_SO)) -Wl,-soname,$(@F) -o $@ $^

.PHONY: valgrind-lib
