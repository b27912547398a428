/* A small program with a live heap that crashes: small NUMBER. Its records differ with the number. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define HEAP (2u << 20)

static const char *const states[] = {"connecting", "established", "draining", "closed"};

struct session {
	struct session *next;
	unsigned int number, peer;
	double score;
	const char *state;
	char token[24], line[72];
};

static unsigned int state;

static unsigned int draw(void)
{
	state = state * 1664525u + 1013904223u;
	return state >> 8;
}

int main(int argc, char **argv)
{
	struct session *first = NULL;
	struct rlimit limit;

	getrlimit(RLIMIT_CORE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_CORE, &limit);
	state = argc > 1 ? (unsigned int)atoi(argv[1]) : 0;
	for (unsigned int n = 0; n < HEAP / (sizeof(*first) + 8); n++) {
		struct session *session = malloc(sizeof(*session));

		session->next = first;
		session->number = n;
		session->peer = draw();
		session->score = draw() / 16777216.0;
		session->state = states[draw() % 4];
		snprintf(session->token, sizeof(session->token), "%06x%06x%06x", draw(), draw(), draw());
		snprintf(session->line, sizeof(session->line), "10.%u.%u.%u GET /api/v1/sessions/%u 200 %u ms",
			 draw() % 256, draw() % 256, draw() % 256, n, draw() % 1000);
		first = session;
	}
	*(volatile int *)NULL = first != NULL;
	return 0;
}
