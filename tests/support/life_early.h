/* Blocks that are made before the program has properly started, and freed by main(): for programs that allocate in a
 * constructor or while they are being relocated. */
#ifndef TESTS_SUPPORT_LIFE_EARLY_H
#define TESTS_SUPPORT_LIFE_EARLY_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIFE_EARLY_BLOCKS = 300 };

static unsigned char *life_early[LIFE_EARLY_BLOCKS];

static size_t life_early_size(int i) { return (size_t)i * (size_t)i + 1; }

static bool life_all_are(const unsigned char *block, size_t size, unsigned char value) {
    for (size_t i = 0; i < size; ++i) {
        if (block[i] != value) {
            return false;
        }
    }
    return true;
}

/* Makes the blocks, and frees as many again in between. Uses nothing but malloc and free. */
static void life_early_make(void) {
    for (int i = 0; i < LIFE_EARLY_BLOCKS; ++i) {
        size_t size = life_early_size(i);
        unsigned char *gone = malloc(size);
        life_early[i] = malloc(size);
        for (size_t k = 0; k < size; ++k) {
            life_early[i][k] = (unsigned char)i;
            gone[k] = 0xff;
        }
        free(gone);
    }
}

/* Checks that the early blocks are whole while new ones are made, then frees all: "ok" and 0, or what is wrong and 1.
 * `expect_ours` wants malloc to be hakmem's. */
static int life_early_report(void) {
    unsigned char *late[LIFE_EARLY_BLOCKS];
    bool expect_ours = getenv("LIFE_ANY_MALLOC") == NULL;
    if (expect_ours && dlsym(RTLD_DEFAULT, "hak_version") == NULL) {
        puts("malloc is not hakmem's");
        return 1;
    }
    for (int i = 0; i < LIFE_EARLY_BLOCKS; ++i) {
        late[i] = malloc(life_early_size(i));
        memset(late[i], 0xee, life_early_size(i));
    }
    for (int i = 0; i < LIFE_EARLY_BLOCKS; ++i) {
        if (!life_all_are(life_early[i], life_early_size(i), (unsigned char)i) ||
            !life_all_are(late[i], life_early_size(i), 0xee)) {
            printf("block %d is damaged\n", i);
            return 1;
        }
        free(life_early[i]);
        free(late[i]);
    }
    puts("ok");
    return 0;
}

#endif
