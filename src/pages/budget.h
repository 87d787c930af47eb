/* How much free memory the stores keep resident. Each has a budget of dirty bytes; beyond it, memory goes back at once.
 *
 * Reuse goes before growth: what one store takes that was not resident, the others give back of what they hold dirty.
 * And no store gives back at each free what it needs again at once: it may keep so much more, for a while.
 * All of this is advice: any thread, relaxed, publishes nothing. */
#ifndef HAK_PAGES_BUDGET_H
#define HAK_PAGES_BUDGET_H

#include "base/config.h"

enum hak_store { HAK_STORE_SLABS, HAK_STORE_L25, HAK_STORE_BIG, HAK_STORES };

/* Bytes that a store may hold dirty while so much of it is live. */
uint64_t hak_budget(enum hak_store store, uint64_t live_bytes);

/* Memory was taken that is not resident yet. `spent`: of what the store held dirty, no more than an eighth of its
 * budget is left. */
void hak_budget_count_fresh(enum hak_store store, size_t bytes, bool spent);
/* Memory went back, and not to make room for another store. */
void hak_budget_count_gone(enum hak_store store, size_t bytes);
/* Memory went back because the budget did not allow for more. */
void hak_budget_count_trimmed(enum hak_store store, size_t bytes);

/* Whether `least` bytes more are resident than before. Who is told so takes the counts, and has each store give back
 * for what the others took. */
bool hak_budget_take_fresh(size_t least, size_t fresh[HAK_STORES]);
/* Forgets by and by what stores once needed beyond their budgets. */
void hak_budget_decay(uint64_t now_ms);
void hak_budget_reset_for_test(enum hak_store store);

#endif
