# debug: assertions, hak_<unit>_check() and test hooks; the white-box tests (tests/unit_*.c) link its objects.
# Proves: that the structures' invariants hold after each tested operation, and the lock order law.
# Does not prove: that the release build, where the assertions are gone and the optimiser works, does the same.
debug_CC       := gcc
debug_CXX      := g++
debug_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
debug_FLAGS    := -O1 -fno-omit-frame-pointer
debug_LDFLAGS  :=
debug_ENV      :=
debug_WRAP     :=
debug_KINDS    := unit api
