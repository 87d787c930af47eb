/* The HAKMEM_* options: one table (options.def), read once, without allocation.
 * Set by hak_options_init() before a second thread exists; constant afterwards, except through hak_mallopt(). */
#ifndef HAK_BASE_OPTIONS_H
#define HAK_BASE_OPTIONS_H

#include "base/config.h"
#include "base/sync.h"

#define HAK_FIELD_BOOL _Atomic uint64_t
#define HAK_FIELD_NUMBER _Atomic uint64_t
#define HAK_FIELD_TEXT const char *
struct hak_options {
#define HAK_OPTION(name, type, def, min, max, unit, help) HAK_FIELD_##type name;
#include "base/options.def"
#undef HAK_OPTION
};
extern struct hak_options hak_options;

/* An option's value (BOOL, NUMBER). Relaxed: a single word that publishes nothing else. */
#define hak_option(name) hak_load_rlx(&hak_options.name)

/* Reads the environment `env` (NULL: none yet). Warns of unknown names and bad values, prints the table for
 * HAKMEM_HELP=1. In set-user-ID programs it reads nothing. Only the first call with an environment does anything. */
void hak_options_init(char **env);
/* Back to the defaults, and to before the first call. Test builds only. */
void hak_options_reset_for_test(void);

#endif
