#!/usr/bin/env bash
# Builds the fuzz targets for OSS-Fuzz, whose environment says how and where to: see Makefile beside this in the source.
set -eu
cd "${SRC:?}/hakmem"
unset MAKEFLAGS MFLAGS MAKELEVEL
exec make -f fuzz/oss-fuzz/Makefile -j"$(nproc)" ossfuzz
