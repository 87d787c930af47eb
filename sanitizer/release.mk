# release: what users get.
# Proves: with the black-box tests, that unmodified programs run on hakmem.
# Does not prove: anything about memory errors or races inside; the configurations beside this file do.
release_CC       := gcc
release_CXX      := g++
release_SWITCHES := HAK_CHECKED=0
release_FLAGS    := -O2
release_LDFLAGS  :=
release_ENV      :=
release_WRAP     :=
