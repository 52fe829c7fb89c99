/*
 * Fills anonymous memory with pages that can be made again from a seed, touches them in random order,
 * rewrites some, and compares every byte. Runs inside a guest whose memory is smaller than the data, so
 * that the pages travel through the swap disk.
 *
 * Every page's content follows from (seed, page, generation): zero pages, same-filled pages, random bytes
 * and text-like bytes, as in real memory. Nothing that the check relies on is read back from swap but the
 * generations: a damaged one shows as a mismatch too.
 *
 * usage: check_pages MIB SEED ROUNDS [kind=mixed|random|light] [seconds=N] [pageout] [forever] [stalls]
 *   kind     mixed: all of these; random: nothing that shrinks; light: no random bytes, and text in the first part of a page only,
 *            as in a heap with free memory in it
 *   seconds  go on with rounds for so long, at least for ROUNDS; the last one ends when the time is up
 *   pageout  ask the kernel to swap everything out after the fill and after every round
 *   forever  go on with rounds until killed
 *   stalls   print "@stall MILLISECONDS" for each page that took longer than 20 ms to get and to compare
 * Prints "VERIFIED pages=N checks=N rewrites=N", or "MISMATCH page=N ..." and exits 1.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static uint64_t seed;
static int only_random, only_light;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill_random(uint8_t *page, uint64_t state)
{
    for (int i = 0; i < PAGE; i += 8) {
        uint64_t word = next(&state);
        memcpy(page + i, &word, 8);
    }
}

/* Short words and numbers: shrinks to about a third, as most pages of real programs do. */
static void fill_text(uint8_t *page, uint64_t state)
{
    static const char *const words[] = {"page ", "guest ", "pool=", "balloon ", "swap: ", "{\"id\": ", "0x", "\0\0\0\0"};
    static const uint8_t lengths[] = {5, 6, 5, 8, 6, 7, 2, 4};
    int at = 0, end = only_light ? PAGE * 3 / 8 : PAGE;
    while (at < end) {
        uint64_t r = next(&state);
        uint8_t piece[16];
        int n = lengths[r & 7];
        memcpy(piece, words[r & 7], n);
        for (int digits = (r >> 3) & 3; digits >= 0; digits--)
            piece[n++] = '0' + ((r >> (8 + 4 * digits)) % 10);
        if (n > end - at)
            n = end - at;
        memcpy(page + at, piece, n);
        at += n;
    }
    memset(page + end, 0, PAGE - end);
}

static void make_page(uint8_t *page, uint64_t index, uint8_t generation)
{
    uint64_t state = seed ^ (index << 8) ^ generation;
    uint64_t kind = next(&state) % 8;
    if (only_random || (!only_light && (kind == 2 || kind == 3)))
        fill_random(page, state);
    else if (kind == 0)
        memset(page, 0, PAGE);
    else if (kind == 1)
        memset(page, (int)(state >> 56), PAGE);
    else
        fill_text(page, state);
}

static long now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void check_page(const uint8_t *memory, uint64_t index, uint8_t generation)
{
    static uint8_t expected[PAGE];
    const uint8_t *got = memory + index * PAGE;
    make_page(expected, index, generation);
    if (memcmp(got, expected, PAGE) == 0)
        return;
    int at = 0;
    while (got[at] == expected[at])
        at++;
    printf("MISMATCH page=%llu offset=%d got=0x%02x expected=0x%02x generation=%d\n", (unsigned long long)index, at,
           got[at], expected[at], generation);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: check_pages MIB SEED ROUNDS [kind=mixed|random|light] [seconds=N] [pageout] [forever] [stalls]\n");
        return 2;
    }
    uint64_t pages = strtoull(argv[1], NULL, 10) * 256, checks = 0, rewrites = 0;
    seed = strtoull(argv[2], NULL, 10) << 40;
    long rounds = strtol(argv[3], NULL, 10);
    int pageout = 0, forever = 0, stalls = 0;
    long end = 0;
    for (int i = 4; i < argc; i++) {
        pageout |= strcmp(argv[i], "pageout") == 0;
        forever |= strcmp(argv[i], "forever") == 0;
        stalls |= strcmp(argv[i], "stalls") == 0;
        only_random |= strcmp(argv[i], "kind=random") == 0;
        only_light |= strcmp(argv[i], "kind=light") == 0;
        if (strncmp(argv[i], "seconds=", 8) == 0)
            end = now_seconds() + strtol(argv[i] + 8, NULL, 10);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    uint8_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *generations = calloc(pages, 1);
    uint32_t *order = malloc(pages * sizeof *order);
    if (memory == MAP_FAILED || !generations || !order) {
        perror("check_pages: memory");
        return 2;
    }
    for (uint64_t i = 0; i < pages; i++) {
        make_page(memory + i * PAGE, i, 0);
        order[i] = (uint32_t)i;
    }
    printf("filled pages=%llu\n", (unsigned long long)pages);

    uint64_t dice = seed + 1;
    for (long round = 0; forever || round < rounds || now_seconds() < end; round++) {
        if (pageout && madvise(memory, pages * PAGE, MADV_PAGEOUT) != 0) {
            perror("check_pages: madvise(MADV_PAGEOUT)");
            return 2;
        }
        for (uint64_t i = pages - 1; i > 0; i--) {
            uint64_t j = next(&dice) % (i + 1);
            uint32_t swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
        for (uint64_t i = 0; i < pages && (round < rounds || forever || now_seconds() < end); i++) {
            uint64_t page = order[i];
            double begin = stalls ? now_ms() : 0;
            check_page(memory, page, generations[page]);
            if (stalls && now_ms() - begin > 20)
                printf("@stall %.0f\n", now_ms() - begin);
            checks++;
            if (next(&dice) % 3 == 0) {
                make_page(memory + page * PAGE, page, ++generations[page]);
                rewrites++;
            }
        }
        printf("round %ld done\n", round + 1);
    }
    for (uint64_t i = 0; i < pages; i++, checks++)
        check_page(memory, i, generations[i]);
    printf("VERIFIED pages=%llu checks=%llu rewrites=%llu\n", (unsigned long long)pages, (unsigned long long)checks,
           (unsigned long long)rewrites);
    return 0;
}
