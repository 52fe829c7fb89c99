/*
 * Measures swap-ins: fills memory with real pages, then reads one word of randomly chosen pages, each choice depending on
 * the word read before, and times those reads whose page is not in memory.
 *
 * usage: swap_in PAGES-FILE MIB COUNT
 * Prints "SWAP-IN " and one JSON object, times in microseconds.
 *
 * Whether a page is in memory is asked with mincore() before the clock runs. The clock is the processor's own counter:
 * a system call would cost a User-mode Linux guest more than the smallest swap-in. Every page's bytes are compared with
 * the file at the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include "common.h"


/* A counter of /proc/vmstat. */
static uint64_t vmstat(const char *name)
{
    char line[128], format[64];
    unsigned long long value = 0;
    FILE *file = fopen("/proc/vmstat", "r");
    if (!file)
        fail("/proc/vmstat");
    snprintf(format, sizeof format, "%s %%llu", name);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, format, &value) == 1)
            break;
    fclose(file);
    return value;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t bytes = strtoull(argv[2], 0, 10) << 20, pages = bytes / PAGE, count = strtoull(argv[3], 0, 10);
    int file = open(argv[1], O_RDONLY);
    struct stat info;
    if (file < 0 || fstat(file, &info) || info.st_size < PAGE)
        fail(argv[1]);
    size_t file_pages = info.st_size / PAGE;
    uint8_t *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *ticks = calloc(count, sizeof *ticks);
    if (memory == MAP_FAILED || !ticks)
        fail("memory");
    for (size_t page = 0; page < pages; page++)
        if (pread(file, memory + page * PAGE, PAGE, page % file_pages * PAGE) != PAGE)
            fail("read");

    uint64_t state = 1, swapped_in = vmstat("pswpin"), begin_tick = __rdtsc();
    double begin = seconds();
    size_t timed = 0, touched = 0;
    while (timed < count && touched < 100 * count) {
        unsigned char resident;
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint8_t *page = memory + (state >> 33) % pages * PAGE;
        if (mincore(page, PAGE, &resident))
            fail("mincore");
        unsigned aux;
        uint64_t start = __rdtscp(&aux);
        uint64_t word = *(volatile uint64_t *)(page + (state >> 20) % 512 * 8);
        _mm_lfence();
        uint64_t end = __rdtscp(&aux);
        state ^= word; /* The next choice depends on what was read. */
        touched++;
        if (!(resident & 1))
            ticks[timed++] = end - start;
    }
    double ticks_per_us = (__rdtsc() - begin_tick) / ((seconds() - begin) * 1e6);
    swapped_in = vmstat("pswpin") - swapped_in;

    uint64_t sum = 0;
    for (size_t i = 0; i < timed; i++)
        sum += ticks[i];
    qsort(ticks, timed, sizeof *ticks, by_size);

    uint8_t right[PAGE];
    size_t wrong = 0;
    for (size_t page = 0; page < pages; page += 7) {
        if (pread(file, right, PAGE, page % file_pages * PAGE) != PAGE)
            fail("read");
        wrong += memcmp(right, memory + page * PAGE, PAGE) != 0;
    }
    if (!timed)
        return 1;
    printf("SWAP-IN {\"swap_ins\": %zu, \"touched\": %zu, \"pswpin\": %llu, \"mean_us\": %.2f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"wrong_pages\": %zu}\n",
           timed, touched, (unsigned long long)swapped_in, sum / ticks_per_us / timed, ticks[timed / 2] / ticks_per_us,
           ticks[timed * 99 / 100] / ticks_per_us, wrong);
    return wrong != 0;
}
