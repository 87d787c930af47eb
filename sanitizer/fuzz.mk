# fuzz: what libFuzzer drives (make fuzz): asan with coverage counters.
# Proves and does not prove: as asan, on the inputs that the fuzzer comes upon.
# No leak check: hakmem's memory and the model's are no C library blocks, and the targets count what is left.
fuzz_CC       := clang-14
fuzz_CXX      := clang++-14
fuzz_SWITCHES := HAK_DEBUG=1 HAK_ASAN=1 HAK_TEST=1
fuzz_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                 -fno-sanitize-recover=all -fsanitize-coverage-ignorelist=sanitizer/coverage.ignore
fuzz_LDFLAGS  := -fsanitize=address,undefined
fuzz_ENV      := ASAN_OPTIONS=detect_leaks=0:external_symbolizer_path=/usr/bin/llvm-symbolizer-14 \
                 UBSAN_OPTIONS=print_stacktrace=1
fuzz_WRAP     :=
fuzz_KINDS    :=
