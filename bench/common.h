/* What the benchmarks' programs have in common. Define _GNU_SOURCE before it is included. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGE 4096

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}
