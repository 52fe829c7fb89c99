/*
 * A program with an anonymous working set: fills memory with real pages, then uses them, and says how long that took.
 *
 * usage: working_set PAGES-FILE MIB zipf|scan ACCESSES
 * Prints "WORKING-SET " and one JSON object.
 *
 * Every page is made unlike all others by one word, its own number, so that no two can be shared; pages that repeat one word stay as
 * they are. An access reads all of a page, and every fourth writes one word of it. zipf: the page of rank k is used with a frequency of 1/k, ranks
 * spread over memory in groups of four neighbours, as allocators leave them. scan: one page after the other, round and round.
 * As many accesses as are timed come before, untimed. Every page's bytes are compared with the file at the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define WORDS (PAGE / 8)
#define NUMBER_AT 200 /* The word that is a page's number. */
#define WRITES_AT 400 /* The word that accesses write. */
#define GROUP 4

static int file;
static size_t file_pages, pages;
static uint64_t *memory, *group_at, state = 1, sum;
static uint32_t *writes;

static uint64_t next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = state ^ state >> 33;
    return x * 0xff51afd7ed558ccdu >> 11;
}

/* What a page of the working set is at first. True: it repeats one word. */
static int make_page(size_t page, uint64_t *to)
{
    if (pread(file, to, PAGE, page % file_pages * PAGE) != PAGE)
        fail("read");
    int same = memcmp(to, to + 1, PAGE - 8) == 0;
    if (!same)
        to[NUMBER_AT] = page * 0x9e3779b97f4a7c15u;
    return same;
}

static size_t zipf(void)
{
    double u = next_random() / 0x1p53;
    size_t rank = exp(u * log(pages + 1.0)) - 1;
    if (rank >= pages)
        rank = pages - 1;
    return group_at[rank / GROUP] * GROUP + rank % GROUP;
}

static void use(size_t accesses, int is_zipf)
{
    static size_t at, count;
    for (size_t i = 0; i < accesses; i++, count++) {
        size_t page = is_zipf ? zipf() : at++ % pages;
        uint64_t *words = memory + page * WORDS, all = 0;
        for (size_t word = 0; word < WORDS; word++)
            all += words[word];
        sum += all;
        if (count % 4 == 0) {
            words[WRITES_AT]++;
            writes[page]++;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fprintf(stderr, "usage: %s PAGES-FILE MIB zipf|scan ACCESSES\n", argv[0]), 2;
    size_t bytes = strtoull(argv[2], 0, 10) << 20, accesses = strtoull(argv[4], 0, 10);
    int is_zipf = !strcmp(argv[3], "zipf");
    pages = bytes / PAGE;
    struct stat info;
    file = open(argv[1], O_RDONLY);
    if (file < 0 || fstat(file, &info) || info.st_size < PAGE)
        fail(argv[1]);
    file_pages = info.st_size / PAGE;
    memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    writes = calloc(pages, sizeof *writes);
    size_t groups = pages / GROUP;
    group_at = malloc(groups * sizeof *group_at);
    if (memory == MAP_FAILED || !writes || !group_at || !groups)
        fail("memory");
    pages = groups * GROUP;
    for (size_t i = 0; i < groups; i++)
        group_at[i] = i;
    for (size_t i = groups - 1; i > 0; i--) {
        size_t j = next_random() % (i + 1);
        uint64_t other = group_at[i];
        group_at[i] = group_at[j];
        group_at[j] = other;
    }
    double begin = seconds();
    for (size_t page = 0; page < pages; page++) {
        make_page(page, memory + page * WORDS);
        /* What was read of the file is not needed again and takes memory from nobody. */
        if (page % 4096 == 4095)
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    }
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    double filled = seconds();
    use(accesses, is_zipf);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    double timed = seconds();
    use(accesses, is_zipf);
    double end = seconds();
    getrusage(RUSAGE_SELF, &after);

    static uint64_t right[WORDS];
    size_t wrong = 0;
    for (size_t page = 0; page < pages; page++) {
        make_page(page, right);
        right[WRITES_AT] += writes[page];
        wrong += memcmp(right, memory + page * WORDS, PAGE) != 0;
        if (page % 4096 == 4095)
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    }
    printf("WORKING-SET {\"fill_s\": %.3f, \"warm_s\": %.3f, \"seconds\": %.3f, \"accesses_per_s\": %.0f, \"major_faults\": %ld, "
           "\"wrong_pages\": %zu, \"sum\": %llu}\n",
           filled - begin, timed - filled, end - timed, accesses / (end - timed), after.ru_majflt - before.ru_majflt, wrong,
           (unsigned long long)sum);
    return wrong != 0;
}
