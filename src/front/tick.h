#ifndef HAK_FRONT_TICK_H
#define HAK_FRONT_TICK_H

/* To be called on every slow path: watches for a fork, and now and then for what is due by age or by growth. */
void hak_tick(void);

#endif
