/*
 * Writes pages that do not compress straight to a block device, one at a time, and remembers in a file which
 * version of each was accepted last and which was refused; compares what comes back with that.
 *
 * usage: put_pages DEVICE BOOK write FIRST COUNT VERSION    prints "@written ACCEPTED REFUSED LONGEST_MS"
 *        put_pages DEVICE BOOK check COUNT                  prints "@checked WHOLE REFUSED", or what is wrong
 *
 * A page that was refused must not be answered with an older version: only an error, or zeroes if it was never
 * there, will do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MOST_PAGES 65536

/* A page's entry in the book: 0 never written, version + 1 accepted, or with this bit refused. */
#define REFUSED 0x80
static uint8_t book[MOST_PAGES];
static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
static uint8_t expected[PAGE];

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void make(uint8_t *to, int number, int version)
{
    uint64_t state = (uint64_t)number << 8 | version;
    for (int i = 0; i < PAGE; i += 8) {
        uint64_t word = next(&state);
        memcpy(to + i, &word, 8);
    }
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int die(const char *what)
{
    perror(what);
    return 1;
}

static int put(int disk, int first, int count, int version)
{
    int accepted = 0, refused = 0;
    long longest = 0;
    for (int number = first; number < first + count; number++) {
        make(page, number, version);
        long start = now_ms();
        ssize_t n = pwrite(disk, page, PAGE, (off_t)number * PAGE);
        long took = now_ms() - start;
        longest = took > longest ? took : longest;
        if (n == PAGE) {
            book[number] = version + 1;
            accepted++;
        } else if (n < 0 && errno == EIO) {
            book[number] |= REFUSED;
            refused++;
        } else {
            return die("pwrite");
        }
    }
    printf("@written %d %d %ld\n", accepted, refused, longest);
    return 0;
}

static int check(int disk, int count)
{
    static const uint8_t zeroes[PAGE];
    int whole = 0, refused = 0;
    for (int number = 0; number < count; number++) {
        if (book[number] == 0)
            continue;
        ssize_t n = pread(disk, page, PAGE, (off_t)number * PAGE);
        if (book[number] & REFUSED) {
            int was_there = book[number] & ~REFUSED;
            int is_right = n < 0 ? errno == EIO : !was_there && memcmp(page, zeroes, PAGE) == 0;
            if (!is_right) {
                printf("page %d was refused and comes back\n", number);
                return 1;
            }
            refused++;
            continue;
        }
        make(expected, number, book[number] - 1);
        if (n != PAGE || memcmp(page, expected, PAGE) != 0) {
            printf("page %d is another one (%zd)\n", number, n);
            return 1;
        }
        whole++;
    }
    printf("@checked %d %d\n", whole, refused);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    int disk = open(argv[1], O_RDWR | O_DIRECT);
    if (disk < 0)
        return die(argv[1]);
    int file = open(argv[2], O_RDWR | O_CREAT, 0600);
    if (file < 0 || read(file, book, sizeof book) < 0)
        return die(argv[2]);
    if (strcmp(argv[3], "check") == 0)
        return check(disk, atoi(argv[4]));
    if (argc < 7 || put(disk, atoi(argv[4]), atoi(argv[5]), atoi(argv[6])) != 0)
        return 1;
    if (pwrite(file, book, sizeof book, 0) != sizeof book)
        return die("the book");
    return 0;
}
