CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
    INSERT INTO item SELECT i, i % 500, 'name-' || (i * 7919 % 100003), substr(hex(i * i), 1, i % 12) FROM n;
CREATE INDEX item_name ON item (name, note);
CREATE INDEX item_kind ON item (kind);
SELECT count(*), sum(length(name)), sum(length(note)) FROM item;
SELECT kind, count(*), length(group_concat(note)) FROM item GROUP BY kind ORDER BY 3 DESC, 1 LIMIT 20;
SELECT count(*), sum(a.id) FROM item a JOIN item b ON a.name = b.name AND a.id < b.id;
DELETE FROM item WHERE id % 5 = 0;
SELECT length(hex(zeroblob(5000000)));
VACUUM;
PRAGMA integrity_check;
