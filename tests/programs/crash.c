/* A program that crashes on purpose: crash <way> [MiB of memory that is not zero]. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define THREADS 32

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static int overflow(int depth)
{
	volatile char frame[4096];

	frame[0] = (char)depth;
	return overflow(depth + 1) + frame[0];
}

static void fill(size_t mib)
{
	for (size_t n = 0; n < mib; n++) {
		unsigned int *block = malloc(1 << 20);

		for (size_t i = 0; block && i < (1 << 20) / sizeof(*block); i++)
			block[i] = (unsigned int)(i * 2654435761u + n);
	}
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "segv";
	struct rlimit limit;

	getrlimit(RLIMIT_CORE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_CORE, &limit);
	fill(argc > 2 ? (size_t)atoi(argv[2]) : 0);
	if (!strcmp(way, "threads")) {
		pthread_t thread;

		for (int n = 0; n < THREADS; n++)
			pthread_create(&thread, NULL, wait_for_ever, NULL);
	}
	if (!strcmp(way, "wait")) {
		puts("ready");
		fflush(stdout);
		wait_for_ever(NULL);
	}
	if (!strcmp(way, "abort"))
		abort();
	if (!strcmp(way, "overflow"))
		return overflow(0);
	*(volatile int *)(argc > 99 ? (char *)argv : NULL) = 1;
	return 0;
}
