/* The table of shards of the L2.5 pool, which doubles under load or contention (64 -> 1,024).
 *
 * Shards lie in blocks (64, 64, 128, 256, 512) that stay in place for good: a shard keeps its lock and its chunks,
 * nothing is rehashed, and who read the old count goes on with the old shards. The count is published last, with
 * release. Expansion therefore costs an allocation one store, and a free nothing.
 * The check runs in one thread per interval, elected by compare-and-swap on its time. */
#ifndef HAK_STORES_L25_TABLE_H
#define HAK_STORES_L25_TABLE_H

#include "stores/l25_shard.h"

#define HAK_L25_SHARDS_LIMIT 1024

/* Milliseconds as of the last time somebody looked: stamps chunks. Any thread, relaxed: a single word. */
extern _Atomic uint64_t hak_l25_clock_ms;

/* Shards in use: a power of two, 1..1,024. Sets the table up at the first call. */
uint32_t hak_l25_table_count(void);
/* The same without setting anything up: 0 before the first use. */
uint32_t hak_l25_table_count_now(void);
/* Shard number `index`, below the count. */
struct hak_l25_shard *hak_l25_table_shard(uint32_t index);

/* Which shards have chunks: changed under the shard's lock; read by any thread as a hint where to look. */
void hak_l25_table_mark(uint32_t index, bool has_chunks);
/* The first shard from `index` up to below `end` that has chunks, or `end`. */
uint32_t hak_l25_table_next(uint32_t index, uint32_t end);

/* Looks at the clock; once per interval, doubles the table if load or contention passed its threshold. */
void hak_l25_table_tick(void);
uint64_t hak_l25_table_expansions(void);

void hak_l25_table_fork_child(void);
void hak_l25_table_reset_for_test(void);

#endif
