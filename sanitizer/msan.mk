# msan: MemorySanitizer.
# Proves: on the tested paths, that no decision depends on memory nobody wrote: hakmem marks a block that it
#   hands out as uninitialised, and calloc memory as initialised only where it really is zero.
# Does not prove: anything about bytes that go through uninstrumented libraries. cmocka is one: memory from the
#   sanitizer's own malloc counts as initialised, so that cmocka's structures raise no false report. hakmem's
#   memory does not come from there.
# clang 19 unless CC_MSAN says otherwise (gcc has no MemorySanitizer): it checks arguments at the call, so that calls from uninstrumented code carry no stale shadow.
CC_MSAN       ?= clang-19
msan_CC       := $(CC_MSAN)
msan_CXX      := $(subst clang,clang++,$(CC_MSAN))
msan_SWITCHES := HAK_DEBUG=1 HAK_MSAN=1 HAK_TEST=1
msan_FLAGS    := -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls -fsanitize=memory -fsanitize-memory-track-origins -fno-sanitize-recover=all
msan_LDFLAGS  := -fsanitize=memory
msan_ENV      := MSAN_OPTIONS=poison_in_malloc=0:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:poison_in_free=0
msan_WRAP     :=
msan_KINDS    := unit api
