# asan: AddressSanitizer together with UndefinedBehaviorSanitizer.
# Proves: on the tested paths, that neither the allocator nor a test touches memory that is free (hakmem poisons
#   it) or reads out of bounds of a C object, and that no undefined behaviour is executed.
# Does not prove: uninitialised reads (msan), races (tsan), accesses by the system or by libraries that are not
#   instrumented; nor that a pointer is not used after the memory went to the next owner, where the quarantine is off.
# clang 14 unless CC_ASAN says otherwise: it keeps stale poison across munmap and mmap, so a forgotten unpoison is found.
CC_ASAN       ?= clang-14
asan_CC       := $(CC_ASAN)
asan_CXX      := $(subst gcc,g++,$(subst clang,clang++,$(CC_ASAN)))
asan_SWITCHES := HAK_DEBUG=1 HAK_ASAN=1 HAK_TEST=1
asan_FLAGS    := -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls -fsanitize=address,undefined -fno-sanitize-recover=all
asan_LDFLAGS  := -fsanitize=address,undefined
asan_ENV      := ASAN_OPTIONS=detect_leaks=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:detect_stack_use_after_return=1:strict_string_checks=1:suppressions=$(CURDIR)/sanitizer/asan.supp \
                 LSAN_OPTIONS=suppressions=$(CURDIR)/sanitizer/lsan.supp \
                 UBSAN_OPTIONS=print_stacktrace=1:suppressions=$(CURDIR)/sanitizer/ubsan.supp
asan_WRAP     :=
asan_KINDS    := unit api
