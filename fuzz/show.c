/* Prints an input of the targets that drive the interface: show FILE... A line per operation, blocks named in the order
 * of their birth: "t2: p7 = realloc(p3, 70000)". */
#include "ops.h"

#include <stdio.h>

static int show(const char *path) {
    static uint8_t data[FUZZ_HEADER_BYTES + FUZZ_OPS_MAX * FUZZ_OP_BYTES + FUZZ_SCHEDULE_MAX];
    struct fuzz_names names = {.born = 0};
    struct fuzz_input input;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    size_t bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    if (!fuzz_decode(&input, data, bytes)) {
        fprintf(stderr, "%s: not an input of version %d\n", path, FUZZ_VERSION);
        return 1;
    }
    printf("# %s: version %d, %u threads, profile %u, target's own %u %u, seed %u, %zu operations, schedule of %zu\n",
           path, FUZZ_VERSION, input.config.threads, input.config.profile, input.config.own[0], input.config.own[1],
           input.config.seed, input.count, input.schedule_bytes);
    for (size_t i = 0; i < input.count; i++) {
        char line[128];
        fuzz_describe(line, sizeof line, fuzz_op_at(&input, i), &names);
        puts(line);
    }
    if (input.schedule_bytes > 0) printf("# schedule:");
    for (size_t i = 0; i < input.schedule_bytes; i++) printf(" %u", input.schedule[i]);
    if (input.schedule_bytes > 0) printf("\n");
    return 0;
}

int main(int argc, char **argv) {
    int status = argc < 2 ? 2 : 0;
    if (argc < 2) fprintf(stderr, "usage: %s FILE...\n", argv[0]);
    for (int i = 1; i < argc; i++) status |= show(argv[i]);
    return status;
}
