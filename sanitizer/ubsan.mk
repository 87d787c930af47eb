# ubsan: UndefinedBehaviorSanitizer alone, with the checks for silent integer conversion beside it.
# Proves: on the tested paths, no undefined behaviour and no implicit conversion that changes a value.
# Does not prove: memory errors (asan). Unsigned wrap-around is defined and not reported.
ubsan_CC       := clang-19
ubsan_CXX      := clang++-19
ubsan_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
ubsan_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=undefined,implicit-conversion,local-bounds -fno-sanitize-recover=all
ubsan_LDFLAGS  := -fsanitize=undefined
ubsan_ENV      := UBSAN_OPTIONS=print_stacktrace=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:suppressions=$(CURDIR)/sanitizer/ubsan.supp
ubsan_WRAP     :=
ubsan_KINDS    := unit api
