/*
 * A program that is busy or idle, as it is told. It fills anonymous memory with pages that shrink to about a third and are all
 * different. Busy, it takes page after page at random, works on it and changes it; idle, it sleeps. So it wants all of its memory while
 * it is busy and none while it is idle.
 *
 * usage: shifts MIB < COMMANDS
 * Commands, a line each: busy, idle, end. Prints "@filled", once a second "@work OPERATIONS MAJOR-FAULTS" (since the line before), and at
 * the end "@verified PAGES", or "@wrong PAGE" and exits 1 as soon as a page is not what it was left as.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
/* The words that are random; the others repeat. */
#define RANDOM (WORDS * 3 / 10)
/* So often an operation goes over its page: a program also computes. */
#define PASSES 8

static uint64_t *memory;
static uint32_t *visits;
static size_t pages;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Its first word counts visits, the rest follows from its number. */
static void fill(size_t page)
{
    uint64_t state = page + 1, *words = memory + page * WORDS;
    words[0] = 0;
    for (size_t i = 1; i < WORDS; i++)
        words[i] = i < RANDOM ? next(&state) : page;
}

static void check(size_t page)
{
    uint64_t state = page + 1, *words = memory + page * WORDS;
    int right = words[0] == visits[page];
    for (size_t i = 1; i < WORDS && right; i++)
        right = words[i] == (i < RANDOM ? next(&state) : page);
    if (!right) {
        printf("@wrong %zu\n", page);
        exit(1);
    }
}

static void visit(size_t page)
{
    volatile uint64_t sum = 0;
    uint64_t *words = memory + page * WORDS;
    for (int pass = 0; pass < PASSES; pass++)
        for (size_t i = 0; i < WORDS; i++)
            sum += words[i] ^ pass;
    if (words[0] != visits[page] || words[WORDS - 1] != page) {
        printf("@wrong %zu\n", page);
        exit(1);
    }
    words[0] = ++visits[page];
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_majflt;
}

/* The next command, if there is one within so many milliseconds. */
static int command(char *to, int size, int patience)
{
    struct pollfd input = {0, POLLIN, 0};
    return poll(&input, 1, patience) > 0 && fgets(to, size, stdin) != NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: %s MIB\n", argv[0]), 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    pages = (strtoull(argv[1], NULL, 10) << 20) / PAGE;
    memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    visits = calloc(pages, sizeof *visits);
    if (memory == MAP_FAILED || !visits)
        return perror("memory"), 2;
    for (size_t page = 0; page < pages; page++)
        fill(page);
    printf("@filled\n");
    uint64_t state = 1, done = 0;
    int busy = 0;
    double said = now();
    long faults_before = faults();
    for (char line[64];;) {
        if (command(line, sizeof line, busy ? 0 : 100)) {
            if (!strncmp(line, "busy", 4))
                busy = 1;
            else if (!strncmp(line, "idle", 4))
                busy = 0;
            else if (!strncmp(line, "end", 3))
                break;
        }
        for (int i = 0; busy && i < 16; i++, done++)
            visit(next(&state) % pages);
        double at = now();
        if (at - said >= 1) {
            long faults_now = faults();
            printf("@work %llu %ld\n", (unsigned long long)done, faults_now - faults_before);
            faults_before = faults_now;
            done = 0;
            said = at;
        }
    }
    for (size_t page = 0; page < pages; page++)
        check(page);
    printf("@verified %zu\n", pages);
    return 0;
}
