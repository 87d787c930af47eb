# strict: the checked library's source with assertions and test hooks: what `checked` is to `release`, this is to `debug`.
# Proves: on the corpus, that each kind of misuse is named at once (fuzz_misuse), and that canaries, fills and guard
#   pages disturb no correct sequence of operations.
# Does not prove: anything about the build that users get; the black-box tests run that.
strict_CC       := gcc
strict_CXX      := g++
strict_SWITCHES := HAK_CHECKED=1 HAK_DEBUG=1 HAK_TEST=1
strict_FLAGS    := -O1 -fno-omit-frame-pointer
strict_LDFLAGS  :=
strict_ENV      :=
strict_WRAP     :=
strict_KINDS    :=
