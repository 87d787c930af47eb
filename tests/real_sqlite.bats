#!/usr/bin/env bats
# sqlite3 imports, indexes, joins, changes and vacuums the same database on hakmem and on the C library.
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

work() {
    awk -v rows=$((40000 * long)) 'BEGIN {
        for (i = 1; i <= rows; i++) {
            x = (i * 7919) % 100003
            printf "%d,%d,name-%d,%s\n", i, x % 500, x, substr("abcdefghijklmnopqrstuvwxyz0123456789", x % 20 + 1, x % 15)
        }
    }' | tee hakmem/rows.csv >libc/rows.csv
    tee hakmem/work.sql >libc/work.sql <<'SQL'
.bail on
PRAGMA page_size = 4096;
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, note TEXT);
CREATE TABLE kind (id INTEGER PRIMARY KEY, label TEXT);
.mode csv
.import rows.csv item
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
    INSERT INTO kind SELECT i, hex(i * i) || printf('%0*d', i, 0) FROM n;
CREATE INDEX item_name ON item (name, note);
CREATE INDEX item_kind ON item (kind);
SELECT count(*), sum(length(name)), sum(length(note)) FROM item;
SELECT k.label, count(*), group_concat(DISTINCT i.note) FROM item i JOIN kind k ON k.id = i.kind
    GROUP BY k.id ORDER BY count(*) DESC, k.id LIMIT 50;
SELECT a.name, b.id FROM item a JOIN item b ON a.name = b.name AND a.id < b.id ORDER BY 1, 2 LIMIT 50;
UPDATE item SET note = note || hex(zeroblob(kind)) WHERE id % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
SELECT length(group_concat(name || note)) FROM item;
SELECT length(CAST(zeroblob(3000000) AS TEXT) || hex(zeroblob(2000000)));
VACUUM;
PRAGMA integrity_check;
.shell grep -c /libhakmem /proc/$PPID/maps >maps || true
SQL
}

compare() {
    work
    on_both sqlite3 -init work.sql file.db .quit
    grep -q '^ok' hakmem/out
    cmp libc/file.db hakmem/file.db
    [ "$(cat libc/maps)" = 0 ]
    [ "$(cat hakmem/maps)" -gt 0 ]
    served sqlite3 20000000
}

@test "sqlite3 gives the same answers and the same database file on hakmem" {
    compare
}

@test "sqlite3 gives the same answers and the same database file on the checked library" {
    HAKRUN_FLAGS=--checked compare
}
