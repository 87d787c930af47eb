/* glibc's <malloc.h> beyond allocation: mallinfo, malloc_info, malloc_stats, mallopt, malloc_trim. The figures are
 * those of hak_stats_get(). */
#include "hakmem.h"

#include "api/guard.h"
#include "api/libc_names.h"
#include "base/options.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

#include <malloc.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>

static struct hak_stats stats_now(void) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    hak_stats_get(&stats);
    return stats;
}

/* ---- mallinfo ------------------------------------------------------------------------------------------- */

/* What malloc_trim() could give back; the rest of what is free shares its pages with live blocks. */
static size_t trimmable_bytes(void) {
    return hak_slab_stats().dirty_bytes + hak_l25_stats().dirty_bytes + hak_big_stats().cached_dirty;
}

struct mallinfo2 hak_mallinfo2(void) {
    struct hak_stats stats = stats_now();
    const struct hak_layer_stats *big = &stats.layer[HAK_LAYER_BIG];
    size_t arena = big->cached_bytes, used = 0;
    for (int i = 0; i < HAK_LAYER_BIG; i++) {
        arena += stats.layer[i].mapped_bytes;
        used += stats.layer[i].live_bytes;
    }
    if (arena < used) arena = used; /* a snapshot of moving figures */
    return (struct mallinfo2){
        .arena = arena,
        .hblks = big->live_blocks,
        .hblkhd = big->live_bytes,
        .uordblks = used,
        .fordblks = arena - used,
        .keepcost = trimmable_bytes(),
    };
}
HAK_LIBC_NAME(mallinfo2, hak_mallinfo2);

static int clamped(size_t n) { return n > INT_MAX ? INT_MAX : (int)n; }

struct mallinfo hak_mallinfo(void) {
    struct mallinfo2 m = hak_mallinfo2();
    return (struct mallinfo){
        .arena = clamped(m.arena),
        .hblks = clamped(m.hblks),
        .hblkhd = clamped(m.hblkhd),
        .uordblks = clamped(m.uordblks),
        .fordblks = clamped(m.fordblks),
        .keepcost = clamped(m.keepcost),
    };
}
HAK_LIBC_NAME(mallinfo, hak_mallinfo);

/* ---- malloc_info ---------------------------------------------------------------------------------------- */

struct part {
    const char *name;
    uint64_t live_blocks, live_bytes, cached_bytes, mapped_bytes;
};

static void add(struct part *part, const struct hak_layer_stats *layer) {
    part->live_blocks += layer->live_blocks;
    part->live_bytes += layer->live_bytes;
    part->cached_bytes += layer->cached_bytes;
    part->mapped_bytes += layer->mapped_bytes;
}

/* glibc's elements: "fast" is what is cached for instant reuse, "rest" all else that is free. The number of free
 * blocks and the maximum of "system" are not known, and left out. */
static void write_part(FILE *out, const struct part *part) {
    uint64_t held = part->live_bytes + part->cached_bytes;
    uint64_t rest = part->mapped_bytes > held ? part->mapped_bytes - held : 0;
    fprintf(out, "<total type=\"used\" count=\"%" PRIu64 "\" size=\"%" PRIu64 "\"/>\n", part->live_blocks,
            part->live_bytes);
    fprintf(out, "<total type=\"fast\" size=\"%" PRIu64 "\"/>\n", part->cached_bytes);
    fprintf(out, "<total type=\"rest\" size=\"%" PRIu64 "\"/>\n", rest);
    fprintf(out, "<system type=\"current\" size=\"%" PRIu64 "\"/>\n", part->mapped_bytes);
    fprintf(out, "<aspace type=\"total\" size=\"%" PRIu64 "\"/>\n", part->mapped_bytes);
}

/* Tiny and Mid share their superslabs, so they are one heap. */
static void write_heaps(FILE *out, const struct hak_stats *stats, struct part *all) {
    struct part heaps[] = {{.name = "slabs"}, {.name = "l25"}, {.name = "big"}};
    add(&heaps[0], &stats->layer[HAK_LAYER_TINY]);
    add(&heaps[0], &stats->layer[HAK_LAYER_MID]);
    add(&heaps[1], &stats->layer[HAK_LAYER_L25]);
    add(&heaps[2], &stats->layer[HAK_LAYER_BIG]);
    for (size_t i = 0; i < sizeof heaps / sizeof heaps[0]; i++) {
        fprintf(out, "<heap nr=\"%zu\" name=\"%s\">\n", i, heaps[i].name);
        write_part(out, &heaps[i]);
        fputs("</heap>\n", out);
    }
    for (int i = 0; i < HAK_LAYER_COUNT; i++) add(all, &stats->layer[i]);
}

int hak_malloc_info(int options, FILE *out) {
    if (options != 0) {
        errno = EINVAL;
        return -1;
    }
    struct hak_stats stats = stats_now();
    const struct hak_layer_stats *big = &stats.layer[HAK_LAYER_BIG];
    struct part all = {.name = NULL};
    fputs("<malloc version=\"1\">\n", out);
    write_heaps(out, &stats, &all);
    write_part(out, &all);
    fprintf(out, "<total type=\"mmap\" count=\"%" PRIu64 "\" size=\"%" PRIu64 "\"/>\n", big->live_blocks,
            big->live_bytes);
    fputs("</malloc>\n", out);
    return ferror(out) ? -1 : 0;
}
HAK_LIBC_NAME(malloc_info, hak_malloc_info);

void hak_malloc_stats(void) { hak_stats_print(2, HAK_FORMAT_TEXT); }
HAK_LIBC_NAME(malloc_stats, hak_malloc_stats);

/* ---- parameters and trimming ---------------------------------------------------------------------------- */

/* M_TRIM_THRESHOLD: the same for each layer, and no more than that, however much is live. -1 turns trimming off. */
static int set_retain(int value) {
    if (value < -1) return 0;
    const uint64_t bytes = value == -1 ? UINT64_C(1) << 40 : (uint64_t)value;
    hak_store_rlx(&hak_options.RETAIN_PERCENT, 0);
    hak_store_rlx(&hak_options.RETAIN_BYTES, bytes);
    hak_store_rlx(&hak_options.BIGCACHE_RESIDENT, bytes);
    return 1;
}

static int set_block_max(int value) {
    if (value < 0) return 0;
    uint64_t bytes = (uint64_t)value;
    hak_store_rlx(&hak_options.BIGCACHE_BLOCK_MAX, bytes < HAK_L25_MAX ? HAK_L25_MAX : bytes);
    return 1;
}

/* Only the checked build touches the blocks it hands out. */
static int set_perturb(int value) {
    if (HAK_CHECKED) hak_store_rlx(&hak_guard_perturb, value & 0xff);
    return HAK_CHECKED;
}

int hak_mallopt(int param, int value) {
    switch (param) {
    case M_TRIM_THRESHOLD:
        return set_retain(value);
    case M_MMAP_THRESHOLD:
        return set_block_max(value);
    case M_PERTURB:
        return set_perturb(value);
    default:
        return 0;
    }
}
HAK_LIBC_NAME(mallopt, hak_mallopt);

/* All is given back, so less than `pad` is kept, whatever it is. */
int hak_malloc_trim(size_t pad) {
    (void)pad;
    return hak_purge() > 0;
}
HAK_LIBC_NAME(malloc_trim, hak_malloc_trim);
