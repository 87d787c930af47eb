# ubsan: UndefinedBehaviorSanitizer alone, with the checks for silent integer conversion beside it, which clang has.
# Proves: on the tested paths, no undefined behaviour and (clang) no implicit conversion that changes a value.
# Does not prove: memory errors (asan). Unsigned wrap-around is defined and not reported.
comma := ,
CC_UBSAN       ?= clang-19
ubsan_CC       := $(CC_UBSAN)
ubsan_CXX      := $(subst gcc,g++,$(subst clang,clang++,$(CC_UBSAN)))
ubsan_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
ubsan_FLAGS    := -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all \
                  -fsanitize=undefined$(if $(findstring clang,$(CC_UBSAN)),$(comma)implicit-conversion$(comma)local-bounds)
ubsan_LDFLAGS  := -fsanitize=undefined
ubsan_ENV      := UBSAN_OPTIONS=print_stacktrace=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:suppressions=$(CURDIR)/sanitizer/ubsan.supp
ubsan_WRAP     :=
ubsan_KINDS    := unit api
