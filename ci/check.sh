#!/usr/bin/env bash
# Runs a command as one TAP test point: ci/check.sh NAME COMMAND... Its output is shown only if it fails.
set -u
name=$1
shift
echo 1..1
if output=$("$@" 2>&1); then
    echo "ok 1 - $name"
else
    echo "not ok 1 - $name"
    echo "# ${output//$'\n'/$'\n'# }"
    exit 1
fi
