#!/usr/bin/env bats
# What the libraries look like to a loader: how much thread-local storage and stack they want, and of which kind.

setup() {
    LIBRARIES=("$HAK_BUILD/libhakmem.so" "$HAK_BUILD/libhakmem-checked.so")
}

# Each function whose frame is over 0x400 bytes, with its size; a line too if no frames were seen at all.
frames_over_1_kib() {
    objdump -d --no-show-raw-insn "$1" | awk '
        />:$/ { name = $2 }
        /sub +\$0x[0-9a-f]+,%rsp/ {
            size = $0
            sub(/.*\$0x/, "", size)
            sub(/,.*/, "", size)
            seen++
            if (length(size) > 3 && length(size) <= 8 || length(size) == 3 && size > "400") print name, "0x" size
        }
        END { if (seen < 10) print "only", seen + 0, "frames seen" }'
}

@test "the thread-local segment has at most 64 bytes" {
    local library size
    for library in "${LIBRARIES[@]}"; do
        size=$(readelf -lW "$library" | awk '$1 == "TLS" { print $6 }')
        echo "$library: $size"
        [ $((size)) -ge 8 ] && [ $((size)) -le 64 ]
    done
}

@test "thread-local storage is reached without calls" {
    local library
    for library in "${LIBRARIES[@]}"; do
        readelf -dW "$library" | grep -q STATIC_TLS
        run bash -c "readelf -rW '$library' | grep -E 'DTPMOD|TLSDESC'"
        [ -z "$output" ]
        run bash -c "nm -D --undefined-only '$library' | grep __tls_get_addr"
        [ -z "$output" ]
    done
}

@test "no function takes more than 1 KiB of stack" {
    local library
    for library in "${LIBRARIES[@]}"; do
        run frames_over_1_kib "$library"
        echo "$library: $output"
        [ "$status" -eq 0 ]
        [ -z "$output" ]
    done
}

@test "the library has less than 150 KiB when stripped" {
    local stripped=$BATS_TEST_TMPDIR/libhakmem.so bytes
    strip -o "$stripped" "$HAK_BUILD/libhakmem.so"
    bytes=$(stat -c %s "$stripped")
    echo "# $bytes bytes" >&3
    [ "$bytes" -gt 10240 ] && [ "$bytes" -lt 153600 ]
}

@test "the libraries resolve everything at load time, stay loaded and have no text relocations" {
    local library
    for library in "${LIBRARIES[@]}"; do
        readelf -dW "$library" | grep -qE 'FLAGS_1.*NOW'
        readelf -dW "$library" | grep -qE 'FLAGS_1.*NODELETE'
        run bash -c "readelf -dW '$library' | grep TEXTREL"
        [ -z "$output" ]
    done
}

@test "the libraries need nothing but the C library" {
    local library
    for library in "${LIBRARIES[@]}"; do
        run bash -c "readelf -dW '$library' | awk '/NEEDED/ { print \$5 }' | grep -vxE '\[(libc\.so\.6|ld-linux-.*)\]'"
        [ -z "$output" ]
    done
}
