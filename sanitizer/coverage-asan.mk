# coverage-asan: counts as `coverage` does, in the white-box tests under AddressSanitizer: the source of exact builds that
# the checked library does not have (blocks held back, reports explained).
# Proves and does not prove: as coverage.
coverage-asan_CC       := clang-14
coverage-asan_CXX      := clang++-14
coverage-asan_SWITCHES := HAK_DEBUG=1 HAK_ASAN=1 HAK_TEST=1
coverage-asan_FLAGS     = $(call coverage_counters,coverage-asan) -O1 -fno-optimize-sibling-calls -fsanitize=address
coverage-asan_LDFLAGS  := -fprofile-instr-generate -fsanitize=address
coverage-asan_ENV       = $(asan_ENV)
coverage-asan_WRAP     :=
coverage-asan_KINDS    := unit api
