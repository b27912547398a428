/* Lays out its memory in one of many ways, and crashes: memory KIND [FILE]. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define PAGE 4096UL

static char *map(size_t size, int flags)
{
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return area;
}

/* Writes noise into every step-th page. */
static void scatter(char *area, size_t size, size_t step)
{
    unsigned seed = 1;
    for (size_t place = 0; place < size; place += step)
        for (size_t n = 0; n < PAGE; n += 64)
            area[place + n] = (char)rand_r(&seed);
}

static void *stay(void *unused)
{
    char mine[65536];
    memset(mine, 0x5a, sizeof mine);
    pause();
    return unused ? unused : mine;
}

static void die(void)
{
    raise(SIGSEGV);
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "sparse";
    volatile char seen = 0;

    if (!strcmp(kind, "sparse")) {
        scatter(map(512 * MIB, MAP_PRIVATE), 512 * MIB, 3 * MIB);
    } else if (!strcmp(kind, "checkered")) {
        scatter(map(16 * MIB, MAP_PRIVATE), 16 * MIB, 2 * PAGE);
        scatter(map(16 * MIB, MAP_PRIVATE), 16 * MIB, 9 * PAGE);
    } else if (!strcmp(kind, "threads")) {
        for (int n = 0; n < 32; n++) {
            pthread_t thread;
            pthread_create(&thread, NULL, stay, NULL);
        }
        usleep(100000);
    } else if (!strcmp(kind, "shared")) {
        scatter(map(32 * MIB, MAP_SHARED), 32 * MIB, 5 * PAGE);
    } else if (!strcmp(kind, "huge")) {
        char *area = map(16 * MIB, MAP_PRIVATE);
        madvise(area, 16 * MIB, MADV_HUGEPAGE);
        scatter(area, 16 * MIB, 5 * MIB);
    } else if (!strcmp(kind, "locked")) {
        char *area = map(4 * MIB, MAP_PRIVATE);
        if (mlock(area, 2 * MIB))
            perror("mlock");
        scatter(area, 4 * MIB, 5 * PAGE);
    } else if (!strcmp(kind, "file")) {
        /* Longer than its file, which has a hole; some pages are changed. */
        int file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || pwrite(file, "begin", 5, 0) != 5 || pwrite(file, "end", 3, 3 * MIB) != 3)
            return 2;
        char *area = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
        area[MIB] = 'x';
        area = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        area[PAGE] = 'y';
    } else if (!strcmp(kind, "forked")) {
        scatter(map(16 * MIB, MAP_PRIVATE), 16 * MIB, 3 * PAGE);
        pid_t child = fork();
        if (child == 0)
            die();
        waitpid(child, NULL, 0);
        return 0;
    } else if (!strcmp(kind, "only-read")) {
        char *area = map(64 * MIB, MAP_PRIVATE);
        for (size_t place = 0; place < 64 * MIB; place += PAGE)
            seen += area[place];
        scatter(area, 64 * MIB, 7 * MIB);
    } else if (!strcmp(kind, "forbidden")) {
        char *area = map(8 * MIB, MAP_PRIVATE);
        scatter(area, 8 * MIB, 3 * PAGE);
        mprotect(area + MIB, MIB, PROT_NONE);
        mprotect(area + 4 * MIB, MIB, PROT_READ);
        madvise(area + 6 * MIB, MIB, MADV_DONTDUMP);
        madvise(area + 7 * MIB, 16 * PAGE, 102); /* MADV_GUARD_INSTALL, Linux 6.13 */
    } else {
        return 2;
    }
    die();
}
