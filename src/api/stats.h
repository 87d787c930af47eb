/* Statistics inside the library; hak_stats_get() and hak_stats_print() are in hakmem.h. Nothing here allocates. */
#ifndef HAK_API_STATS_H
#define HAK_API_STATS_H

/* Keeps stderr for the statistics at exit, where they are asked for; what HAKMEM_STATS_START asks for. */
void hak_stats_at_start(void);
/* The same in a forked child. */
void hak_stats_in_child(void);
/* At the end of the process: prints what HAKMEM_STATS and HAKMEM_STATS_FILE ask for. */
void hak_stats_at_exit(void);

#endif
