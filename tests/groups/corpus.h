/* SPDX-License-Identifier: MIT */
/*
 * What the programs of this folder have in common: the ways by which a program comes to a bug. A way has nothing to do with the bug.
 *
 *   corpus-LANGUAGE BUG PATH
 *
 * BUG is the name of a line `bug:` in the header of the program, PATH a number. The process calls itself BUG, so that its record can be
 * told. By PATH it comes to the bug directly, from a queue, in a thread, or through a recursion, with more or less on the stack and
 * in the heap.
 */
#ifndef CORPUS_H
#define CORPUS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

struct job {
	const char *name;
	void (*work)(int path);
};

static volatile int done;

/* What every way leads to, as in any program that looks up what to do. */
static void perform(void (*work)(int path), int path)
{
	work(path);
	done++;
}

struct task {
	void (*work)(int path);
	int path;
	struct task *next;
};

static struct task *queue;

static void enqueue(void (*work)(int path), int path)
{
	struct task *task = (struct task *)malloc(sizeof(*task));

	task->work = work;
	task->path = path;
	task->next = queue;
	queue = task;
}

static void run_queue(void)
{
	while (queue) {
		struct task *task = queue;

		queue = task->next;
		perform(task->work, task->path);
		free(task);
		done++;
	}
}

static void *run_thread(void *argument)
{
	struct task *task = (struct task *)argument;

	perform(task->work, task->path);
	return argument;
}

static void start_thread_for(void (*work)(int path), int path)
{
	struct task task = {work, path, NULL};
	pthread_t thread;

	if (pthread_create(&thread, NULL, run_thread, &task) == 0)
		pthread_join(thread, NULL);
	done++;
}

static void descend(void (*work)(int path), int path, int depth)
{
	volatile char room[200];

	room[depth % 200] = (char)depth;
	if (depth == 0)
		perform(work, path);
	else
		descend(work, path, depth - 1);
	done += room[depth % 200];
}

static void go(void (*work)(int path), int path)
{
	struct rlimit none = {0, 0};
	void *some = malloc((size_t)path * 24 + 1);

	setrlimit(RLIMIT_CORE, &none);
	switch (path % 4) {
	case 0:
		perform(work, path);
		break;
	case 1:
		enqueue(work, path);
		run_queue();
		break;
	case 2:
		start_thread_for(work, path);
		break;
	default:
		descend(work, path, path);
	}
	free(some);
}

static int find_and_go(const struct job *jobs, size_t count, int argc, char **argv)
{
	for (size_t i = 0; i < count && argc == 3; i++) {
		if (strcmp(jobs[i].name, argv[1]) == 0) {
			prctl(PR_SET_NAME, argv[1]);
			go(jobs[i].work, atoi(argv[2]));
			return 0;
		}
	}
	fprintf(stderr, "usage: %s BUG PATH\n", argv[0]);
	return 2;
}

#endif
