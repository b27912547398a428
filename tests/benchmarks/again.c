/* Has a child crash again and again, one after the other: again SECONDS [PER_SECOND].
   It prints how many did. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    double end = now() + (argc > 1 ? atof(argv[1]) : 0);
    double pause = argc > 2 ? 1 / atof(argv[2]) : 0, next = now();
    int crashes = 0;
    do {
        pid_t child = fork();
        if (child == 0)
            raise(SIGSEGV);
        if (child < 0 || waitpid(child, NULL, 0) != child)
            return 1;
        crashes++;
        next += pause;
        if (next > now())
            usleep((next - now()) * 1e6);
    } while (now() < end);
    printf("%d\n", crashes);
    return 0;
}
