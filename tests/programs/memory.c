/* Lays out its memory in one of many ways, and crashes: memory KIND [FILE]. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
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

static void *crash_late(void *unused)
{
    usleep(200000); /* the main thread is gone by then */
    raise(SIGSEGV);
    return unused;
}

static void must(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(77); /* it is missing here */
    }
}

/* Writes which kinds of memory the kernel dumps: core(5). */
static void filter(const char *mask)
{
    int file = open("/proc/self/coredump_filter", O_WRONLY);
    must(file >= 0 && write(file, mask, strlen(mask)) > 0, "coredump_filter");
    close(file);
}

static void *wait_for_fault(void *descriptor)
{
    char message[sizeof(struct uffd_msg)];
    read((int)(intptr_t)descriptor, message, sizeof message); /* and never answers */
    return NULL;
}

static void *end_soon(void *number)
{
    usleep(1000 + (useconds_t)(intptr_t)number * 37);
    return NULL;
}

static int die_in_the_parents_memory(void *area)
{
    *(char *)area = 'v';
    raise(SIGSEGV);
    return 0;
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
    } else if (!strcmp(kind, "leaderless")) {
        pthread_t thread;
        scatter(map(16 * MIB, MAP_PRIVATE), 16 * MIB, 3 * PAGE);
        pthread_create(&thread, NULL, crash_late, NULL);
        pthread_exit(NULL);
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
    } else if (!strcmp(kind, "userfault") || !strcmp(kind, "write-protected")) {
        /* Others would have to say what is in the pages that were not touched. */
        int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        struct uffdio_api api = {.api = UFFD_API};
        char *area = map(4 * MIB, MAP_PRIVATE);
        char *shared = map(MIB, MAP_SHARED);
        pthread_t thread;

        must(faults >= 0 && !ioctl(faults, UFFDIO_API, &api), "userfaultfd");
        scatter(area, 4 * MIB, 5 * PAGE);
        scatter(shared, MIB, 5 * PAGE);
        struct uffdio_register range = {
            .range = {(uintptr_t)area, 4 * MIB},
            .mode = kind[0] == 'u' ? UFFDIO_REGISTER_MODE_MISSING : UFFDIO_REGISTER_MODE_WP};
        must(!ioctl(faults, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
        if (kind[0] == 'u') {
            range.range = (struct uffdio_range){(uintptr_t)shared, MIB};
            must(!ioctl(faults, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
        } else {
            struct uffdio_writeprotect protect = {
                .range = {(uintptr_t)area, 4 * MIB}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
            must(!ioctl(faults, UFFDIO_WRITEPROTECT, &protect), "UFFDIO_WRITEPROTECT");
        }
        pthread_create(&thread, NULL, wait_for_fault, (void *)(intptr_t)faults);
    } else if (!strcmp(kind, "merged")) {
        char *area = map(4 * MIB, MAP_PRIVATE);
        for (size_t place = 0; place < 4 * MIB; place += 2 * PAGE)
            memset(area + place, 'm', PAGE);
        must(!madvise(area, 4 * MIB, MADV_MERGEABLE), "MADV_MERGEABLE");
        usleep(300000);
    } else if (!strcmp(kind, "memfd")) {
        int file = memfd_create("/dev/../zero (deleted)", 0);
        must(file >= 0 && !ftruncate(file, 2 * MIB), "memfd_create");
        char *area = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        scatter(area, 2 * MIB, 3 * PAGE);
        area = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, MIB);
        scatter(area, MIB, 7 * PAGE);
    } else if (!strcmp(kind, "system-v")) {
        int id = shmget(IPC_PRIVATE, 4 * MIB, IPC_CREAT | 0600);
        must(id >= 0, "shmget");
        char *area = shmat(id, NULL, 0);
        shmctl(id, IPC_RMID, NULL);
        scatter(area, 4 * MIB, 5 * PAGE);
        shmat(id, NULL, SHM_RDONLY); /* once more */
    } else if (!strcmp(kind, "stacks")) {
        char *area = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK, -1, 0);
        must(area != MAP_FAILED, "MAP_GROWSDOWN");
        scatter(area, MIB, 3 * PAGE);
        volatile char deep[4 * MIB];
        deep[0] = deep[2 * MIB] = 1;
    } else if (!strcmp(kind, "moved")) {
        char *area = map(8 * MIB, MAP_PRIVATE);
        scatter(area, 8 * MIB, 3 * PAGE);
        area = mremap(area + 2 * MIB, 2 * MIB, 6 * MIB, MREMAP_MAYMOVE);
        must(area != MAP_FAILED, "mremap");
        area[5 * MIB] = 'm';
        must(mremap(area, MIB, MIB, MREMAP_MAYMOVE | 4 /* DONTUNMAP */) != MAP_FAILED, "mremap");
    } else if (!strcmp(kind, "hugetlb")) {
        filter("0x7f"); /* shared ones, too */
        char *area = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        must(area != MAP_FAILED, "MAP_HUGETLB (vm.nr_hugepages)");
        area[MIB] = 'h';
    } else if (!strcmp(kind, "keys")) {
        char *area = map(4 * MIB, MAP_PRIVATE);
        int key = pkey_alloc(0, 0);
        must(key >= 0, "pkey_alloc");
        scatter(area, 4 * MIB, 3 * PAGE);
        pkey_mprotect(area, 2 * MIB, PROT_READ | PROT_WRITE, key);
        pkey_set(key, PKEY_DISABLE_ACCESS);
    } else if (!strcmp(kind, "pieces")) {
        /* More mappings than a header has room to count, where so many may be. */
        for (int n = 0; n < 70000; n++) {
            char *area = mmap(NULL, PAGE, n % 2 ? PROT_READ : PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            must(area != MAP_FAILED, "vm.max_map_count of 80000");
            if (n % 2 == 0)
                *area = (char)n;
        }
    } else if (!strcmp(kind, "vforked")) {
        char *area = map(4 * MIB, MAP_PRIVATE), *stack = map(MIB, MAP_PRIVATE);
        scatter(area, 4 * MIB, 3 * PAGE);
        clone(die_in_the_parents_memory, stack + MIB, CLONE_VM | CLONE_VFORK | SIGCHLD, area + 5);
        wait(NULL);
        return 0;
    } else if (!strcmp(kind, "ending")) {
        for (int n = 0; n < 64; n++) {
            pthread_t thread;
            pthread_create(&thread, NULL, end_soon, (void *)(intptr_t)n);
        }
        usleep(1500);
    } else if (!strncmp(kind, "filter-", 7)) {
        filter(kind + 7);
        scatter(map(2 * MIB, MAP_PRIVATE), 2 * MIB, 3 * PAGE);
        scatter(map(2 * MIB, MAP_SHARED), 2 * MIB, 3 * PAGE);
    } else if (!strcmp(kind, "guarded")) {
        char *area = map(2 * MIB, MAP_PRIVATE);
        scatter(area, 2 * MIB, 3 * PAGE);
        madvise(area + 64 * PAGE, 64 * PAGE, MADV_FREE);
        madvise(area + 256 * PAGE, 64 * PAGE, MADV_DONTNEED);
        madvise(area + 384 * PAGE, 8 * PAGE, MADV_WIPEONFORK);
        prctl(0x53564d41 /* PR_SET_VMA */, 0, area + 400 * PAGE, 8 * PAGE, "a name]");
    } else {
        return 2;
    }
    die();
}
