# The include law: a file includes its own floor and lower ones, never a higher one (STYLE: folders are floors).
#   awk -f tools/lint/include-law.awk src/*/*.[ch] src/*/*.cc
# Also: siblings of src/stores are strangers, no .c includes a .c, and of system headers each floor has its list.
function complain(text) {
    printf "%s:%d: %s: %s\n", FILENAME, FNR, text, $0
    bad = 1
}
function noun_of(path) { # the sibling of src/stores that a file belongs to; "" for what they share
    sub(/.*\//, "", path)
    return match(path, /^(super)?slab/) ? "slab" : match(path, /^l25/) ? "l25" : match(path, /^big/) ? "big" : \
           match(path, /^huge/) ? "huge" : ""
}
function system_header_allowed(name) {
    if (FILENAME == "src/base/sys_linux.c") return 1
    if (name ~ /^(assert|limits|inttypes|stdarg|stdbool|stddef|stdint|string)\.h$/) return 1
    if (name == "stdatomic.h") return FILENAME == "src/base/sync.h"
    if (name ~ /^(sanitizer|valgrind)\//) return FILENAME ~ /^src\/base\/annotat/
    if (name ~ /^(errno|pthread)\.h$/) return floor >= 4
    if (name ~ /^(malloc|stdio)\.h$/) return floor == 5
    return name == "new" && FILENAME ~ /\.cc$/
}
BEGIN { split("base pages stores front api", names); for (i in names) floors[names[i]] = i + 0 }
FNR == 1 { split(FILENAME, part, "/"); floor = floors[part[2]]; if (!floor) complain("not on a floor") }
/^[ \t]*#[ \t]*include[ \t]/ {
    name = $0
    sub(/^[^"<]*["<]/, "", name)
    sub(/[">].*/, "", name)
    if (name ~ /\.cc?$/) complain("a source file is included")
    if ($0 ~ /</) {
        if (!system_header_allowed(name)) complain("this system header is not for this floor")
        next
    }
    if (name == "hakmem.h") next
    split(name, part, "/")
    target = floors[part[1]]
    if (!target) complain("not a path below src/")
    else if (target > floor) complain("a header of a higher floor")
    else if (part[1] == "stores" && FILENAME ~ /^src\/stores\// && noun_of(name) && noun_of(FILENAME) && \
             noun_of(name) != noun_of(FILENAME)) complain("siblings are strangers")
}
END { exit bad }
