/* How much free memory the stores keep resident. Each has a budget of dirty bytes; beyond it, memory goes back at once.
 *
 * Reuse goes before growth: what one store takes that was not resident, the others give back of what they hold dirty,
 * down to a floor. And no store gives back what it needs again at once: what it trimmed, for the budget or for another,
 * and took anew within PURGE_DELAY_MS is added to its budget for a while: up to 8 times RETAIN_BYTES, and further as
 * long as no more is in use and kept than was live at the peak; to its floor up to 16 times RETAIN_BYTES; for all
 * stores together at most 256 times RETAIN_BYTES. All of this is advice: any thread, relaxed, publishes nothing. */
#ifndef HAK_PAGES_BUDGET_H
#define HAK_PAGES_BUDGET_H

#include "base/config.h"

enum hak_store { HAK_STORE_SLABS, HAK_STORE_L25, HAK_STORE_BIG, HAK_STORES };
enum hak_budget_part { HAK_BUDGET_NONE, HAK_BUDGET_FLOOR, HAK_BUDGET_ALL };

/* Bytes that a store may hold dirty while so many of it are in use. */
uint64_t hak_budget(enum hak_store store, enum hak_budget_part part, uint64_t in_use);
/* So many bytes of the store are in blocks of the program: to be told of slabs while they are asked for. */
bool hak_budget_asks_live(enum hak_store store);
void hak_budget_note_live(enum hak_store store, uint64_t bytes);

/* So many bytes were taken that were not resident; or fewer than none, if a block's went back at once when it was
 * freed. What was kept first, and goes later, is no room to grow into: it is not counted. */
void hak_budget_count(enum hak_store store, ptrdiff_t bytes);
/* Memory went back because more was dirty than the budget allows, or than its floor while another store grew. */
void hak_budget_trimmed(enum hak_store store, size_t bytes);
/* True for PURGE_DELAY_MS or longer after that: who then takes memory that is not resident, and has no more than the
 * floor dirty, says so. */
bool hak_budget_was_trimmed(enum hak_store store);
void hak_budget_retaken(enum hak_store store, size_t bytes);

/* Whether `least` bytes have been taken. Who is told so takes the counts, and has each store give back
 * for what the others took. */
bool hak_budget_take(size_t least, size_t taken[HAK_STORES]);
/* Forgets what is long ago. */
void hak_budget_decay(uint64_t now_ms);
void hak_budget_fork_child(void);
void hak_budget_reset_for_test(enum hak_store store);

#endif
