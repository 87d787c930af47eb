# fuzztsan: what libFuzzer drives for targets with threads (make fuzz SANITIZER=tsan): tsan with coverage counters.
# Proves and does not prove: as tsan, on the inputs that the fuzzer comes upon.
# clang 19: clang 14 has the tool watch the coverage counters, too, and reports them.
# Never abort_on_error=1: libFuzzer's handler for SIGABRT then hangs in the tool. halt_on_error makes a report a finding.
fuzztsan_CC       := clang-19
fuzztsan_CXX      := clang++-19
fuzztsan_SWITCHES := HAK_DEBUG=1 HAK_TSAN=1 HAK_TEST=1
fuzztsan_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,thread \
                     -fsanitize-coverage-ignorelist=sanitizer/coverage.ignore
fuzztsan_LDFLAGS  := -fsanitize=thread
fuzztsan_ENV      := TSAN_OPTIONS=halt_on_error=1:handle_abort=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14
fuzztsan_WRAP     :=
fuzztsan_KINDS    :=
