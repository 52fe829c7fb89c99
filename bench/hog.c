/*
 * A program that takes memory suddenly.
 *
 * usage: hog MIB MIB-PER-SECOND [FILE]
 * First goes to the cgroup whose cgroup.procs FILE is. Prints "taken" when it has all, and keeps it until it is killed.
 *
 * In a memory file, because page faults of User-mode Linux take so long that taking memory page by page would not be sudden.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

int main(int argc, char **argv)
{
    if (argc > 3) { /* the cgroup to go to */
        FILE *procs = fopen(argv[3], "w");
        if (!procs || fprintf(procs, "%d", getpid()) < 0 || fclose(procs))
            fail(argv[3]);
    }
    int file = memfd_create("hog", 0);
    double begin = seconds(), mib_per_s = atof(argv[2]);
    for (long mib = 0; mib < atol(argv[1]); mib++) {
        while ((seconds() - begin) * mib_per_s < mib)
            usleep(1000);
        if (fallocate(file, 0, mib << 20, 1 << 20))
            fail("fallocate");
    }
    puts("taken");
    fclose(stdout);
    pause();
}
