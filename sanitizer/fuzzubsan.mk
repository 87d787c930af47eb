# fuzzubsan: what libFuzzer drives as users run it (make fuzz SANITIZER=ubsan): debug with coverage counters. In fuzz, which
# knows the requested size of each block, realloc resizes nothing in the stores.
# Proves and does not prove: as ubsan and debug, on the inputs that the fuzzer comes upon.
fuzzubsan_CC       := clang-14
fuzzubsan_CXX      := clang++-14
fuzzubsan_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
fuzzubsan_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,undefined \
                      -fno-sanitize-recover=all -fsanitize-coverage-ignorelist=sanitizer/coverage.ignore
fuzzubsan_LDFLAGS  := -fsanitize=undefined
fuzzubsan_ENV      := UBSAN_OPTIONS=print_stacktrace=1
fuzzubsan_WRAP     :=
fuzzubsan_KINDS    :=
