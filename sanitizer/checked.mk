# checked: the release flags with every misuse found at once. Its library lands beside the release one, as
# build/release/libhakmem-checked.so.
# Proves: with the black-box tests, that each kind of misuse is named at once, and that strict bookkeeping
#   (exact usable sizes, canaries, guard pages) disturbs no correct program.
# Does not prove: that the default build finds the same at once; it finds some only at flush.
checked_CC       := gcc
checked_CXX      := g++
checked_SWITCHES := HAK_CHECKED=1
checked_FLAGS    := -O2
checked_LDFLAGS  :=
checked_ENV      :=
checked_WRAP     :=
