# asanlib: the allocator for other people's programs under AddressSanitizer, as build/asan/libhakmem-asan.a. As asan, but
# without UndefinedBehaviorSanitizer and assertions, and with the quarantine on. Only the hak_* names: malloc is ASan's.
# Proves: of the program linked with it, what ASan proves of one on its own malloc (docs/SANITIZERS.md).
# Does not prove: anything about hakmem itself; asan does.
# To be linked by the compiler that made it, or one with the same version of ASan's interface (v8: gcc 12, clang 14, 19).
CC_ASAN          ?= clang-14
asanlib_CC       := $(CC_ASAN)
asanlib_CXX      := $(subst gcc,g++,$(subst clang,clang++,$(CC_ASAN)))
asanlib_SWITCHES := HAK_ASAN=1 HAK_TEST=1
asanlib_FLAGS    := -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls -fsanitize=address
asanlib_OBJECTS  := $(patsubst %,build/asanlib/obj/%.o,$(basename $(wildcard src/*/*.c)))

build/t/bats/reports: build/asan/libhakmem-asan.a
asan-lib: build/asan/libhakmem-asan.a   ## build/asan/libhakmem-asan.a, for programs built with -fsanitize=address

# One object, or the linker would leave out those with nothing but a constructor.
build/asan/libhakmem-asan.a: $(asanlib_OBJECTS)
	@mkdir -p $(@D)
	$(QUIET)ld -r --force-group-allocation -o $@.o $^ && objcopy --localize-hidden $@.o && rm -f $@ && ar rcs $@ $@.o && rm $@.o

.PHONY: asan-lib
