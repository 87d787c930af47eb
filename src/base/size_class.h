/* Size classes of the Tiny and Mid layers: multiples of 16 up to 128, then four per doubling up to 32 KiB.
 * Powers of two are naturally aligned, because a slab starts at a multiple of 64 KiB. */
#ifndef HAK_BASE_SIZE_CLASS_H
#define HAK_BASE_SIZE_CLASS_H

#include "base/config.h"

#define HAK_LINEAR_CLASSES 8                          /* 16, 32 ... 128 */
#define HAK_CLASS_COUNT (HAK_LINEAR_CLASSES + 4 * 8)  /* and 160 ... 32,768 */
#define HAK_TINY_CLASSES (HAK_LINEAR_CLASSES + 4 * 3) /* the last Tiny class is 1,024 */
#define HAK_NO_CLASS HAK_CLASS_COUNT

/* The class of a request of 0..HAK_MID_MAX bytes. */
HAK_INLINE unsigned hak_class_of(size_t size) {
    if (size <= 128) return size == 0 ? 0 : (unsigned)((size - 1) >> HAK_MIN_ALIGN_SHIFT);
    unsigned top = 63 - (unsigned)__builtin_clzll(size - 1); /* 7..14 */
    return HAK_LINEAR_CLASSES + (top - 7) * 4 + (unsigned)(((size - 1) >> (top - 2)) & 3);
}

/* Bytes of a block of class `c`. */
HAK_INLINE uint32_t hak_class_bytes(unsigned c) {
    if (c < HAK_LINEAR_CLASSES) return (c + 1) << HAK_MIN_ALIGN_SHIFT;
    unsigned step = c - HAK_LINEAR_CLASSES;
    return (5 + (step & 3)) << (5 + (step >> 2));
}

/* Slabs in a span of class `c`: 1 for Tiny; Mid spans are long enough that the tail they waste stays under 3 %. */
HAK_INLINE unsigned hak_class_slabs(unsigned c) {
    uint32_t bytes = hak_class_bytes(c);
    return bytes <= 1024 ? 1 : bytes <= 4096 ? 2 : bytes <= 8192 ? 4 : 8;
}

/* The smallest class whose blocks hold `size` bytes and are all aligned to `align` (a power of two up to 32 KiB),
 * or HAK_NO_CLASS. */
HAK_INLINE unsigned hak_class_of_aligned(size_t size, size_t align) {
    size = hak_round_up(size == 0 ? 1 : size, align);
    if (size > HAK_MID_MAX) return HAK_NO_CLASS;
    unsigned c = hak_class_of(size);
    while (c < HAK_CLASS_COUNT && (hak_class_bytes(c) & (align - 1)) != 0) c++;
    return c;
}

#endif
