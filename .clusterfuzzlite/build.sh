#!/usr/bin/env bash
# The same build as for OSS-Fuzz.
exec "${SRC:?}/hakmem/fuzz/oss-fuzz/build.sh"
