# asan: AddressSanitizer together with UndefinedBehaviorSanitizer.
# Proves: on the tested paths, that neither the allocator nor a test touches memory that is free (hakmem poisons
#   it) or reads out of bounds of a C object, and that no undefined behaviour is executed.
# Does not prove: overflows inside one granule of 8 bytes before a block's start, uninitialised reads (msan), races (tsan).
# clang 14 on purpose: it keeps stale poison across munmap and mmap, so a forgotten unpoison is found here.
asan_CC       := clang-14
asan_CXX      := clang++-14
asan_SWITCHES := HAK_DEBUG=1 HAK_ASAN=1 HAK_TEST=1
asan_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
asan_LDFLAGS  := -fsanitize=address,undefined
asan_ENV      := ASAN_OPTIONS=detect_leaks=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:detect_stack_use_after_return=1:strict_string_checks=1:suppressions=$(CURDIR)/sanitizer/asan.supp \
                 LSAN_OPTIONS=suppressions=$(CURDIR)/sanitizer/lsan.supp \
                 UBSAN_OPTIONS=print_stacktrace=1:suppressions=$(CURDIR)/sanitizer/ubsan.supp
asan_WRAP     :=
asan_KINDS    := unit api
