/* Giving memory of the L2.5 pool back to the system: over a budget of dirty bytes at once, by age otherwise.
 *
 * A purge takes the dirty slices of one chunk out of service (claimed), unlocks, calls the OS once per run, and puts
 * them back. A slice is believed zero only if its purge succeeded. A purge that fails changes nothing.
 * The sums over all shards are exact but for what a shard still owes: at most HAK_L25_OWED slices each way, so that
 * alloc and free of one block touch no word that all threads share. */
#ifndef HAK_STORES_L25_PURGE_H
#define HAK_STORES_L25_PURGE_H

#include "stores/l25_shard.h"

#define HAK_L25_OWED 16

/* Adds what the shard owes to the sums, if it is much. */
void hak_l25_settle_locked(struct hak_l25_shard *shard) HAK_REQUIRES(shard->lock);
/* Of what the pool held dirty, no more than the floor of its budget is left. */
bool hak_l25_is_spent(void);
/* Purges the oldest chunks, this shard's first, until the dirty bytes are within the budget. No lock held. */
void hak_l25_trim(struct hak_l25_shard *shard);
void hak_l25_purge_reset_for_test(void);

#endif
