/* SPDX-License-Identifier: MIT */
/*
 * Bugs in C, each with its label. See corpus.h.
 *
 * bug: users-null           a list that was never made is counted
 * bug: sessions-null        another list, by the same function
 * bug: assert-header
 * bug: assert-store
 * bug: die-config           a message by the same function
 * bug: die-limits           for another reason
 * bug: range-port           two functions that other bugs end in as well
 * bug: range-size
 * bug: double-free
 * bug: heap-header          free() finds a header that was overwritten
 * bug: copy-null
 * bug: string-wild          a string that is none
 * bug: print-wild           the same, where it is printed
 * bug: walk-end             a recursion as long as the list
 * bug: tree-deep            one with two calls of itself
 * bug: values-cycle         functions that call each other
 * bug: endless-run          a recursion without end
 * bug: endless-cycle        the same of three functions
 * bug: compare-null         in a function that qsort calls
 * bug: worker-null          in a thread of a pool
 * bug: hook-null            a function pointer that is NULL
 * bug: average-zero
 * bug: cache-unmapped       memory that was given back
 * bug: line-smashed         a buffer on the stack
 */
#include "corpus.h"

#include <assert.h>
#include <stdarg.h>
#include <sys/mman.h>

struct list {
	struct list *next;
	int value;
};

struct table {
	struct list *users, *sessions;
	int count;
};

static struct table tables[4];
static volatile int sink;

/* Two lists. */

static int list_length(const struct list *list)
{
	int length = 0;

	do {
		length += list->value;
		list = list->next;
	} while (list);
	return length;
}

static int users_count(struct table *table)
{
	int count = list_length(table->users);

	sink += count;
	return count * 2;
}

static int sessions_count(struct table *table)
{
	int count = list_length(table->sessions);

	sink -= count;
	return count + 1;
}

static void users_report(int path)
{
	int count = users_count(&tables[path % 4]);

	sink = count + 1;
}

static void sessions_report(int path)
{
	int count = sessions_count(&tables[path % 4]);

	sink = count - 1;
}

/* Assertions. */

static int header_check(const char *text, int length)
{
	assert(length > 100);
	return text[length];
}

static int header_parse(const char *text)
{
	int version = header_check(text, (int)strlen(text));

	sink += version;
	return version;
}

static void message_read(int path)
{
	char text[64];

	snprintf(text, sizeof(text), "GET /%d", path);
	sink += header_parse(text);
}

static int store_put(struct table *table, int value)
{
	assert(table->count == value);
	return table->count++;
}

static void store_fill(int path)
{
	for (int i = 0; i < 3; i++)
		sink += store_put(&tables[1], path + 7);
}

/* Messages. */

static void __attribute__((format(printf, 1, 2))) die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	abort();
}

static int config_check(const char *key, int value)
{
	if (value < 1000)
		die("config: %s is %d\n", key, value);
	return value;
}

static void config_load(int path)
{
	sink += config_check("size", path);
	sink += config_check("rate", path + 1);
}

static int limits_check(int value)
{
	if (value < 2000)
		die("limits: %d\n", value);
	return value + 1;
}

static void limits_apply(int path)
{
	sink = limits_check(path * 2);
	sink++;
}

static int check_range(const char *what, int value, int most)
{
	if (value > most)
		die("%s: %d\n", what, value);
	return value * 3;
}

static int port_set(int value)
{
	int port = check_range("port", value + 70000, 65535);

	sink += port;
	return port;
}

static void ports_open(int path)
{
	sink = port_set(path) + 1;
}

static int size_set(int value)
{
	int size = check_range("size", value + 4000, 4000 - 1);

	sink -= size;
	return size;
}

static void sizes_change(int path)
{
	sink = size_set(path) - 1;
}

/* The heap. */

struct buffer {
	char *data;
	size_t size;
};

static void buffer_release(struct buffer *buffer)
{
	free(buffer->data);
	buffer->size = 0;
	sink++;
}

static struct buffer received, parsed;

static void session_close(int path)
{
	received.data = (char *)malloc((size_t)path + 2000);
	received.data[0] = 1;
	parsed = received;
	buffer_release(&received);
	buffer_release(&parsed);
	sink++;
}

static void record_append(char *to, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile char *)to)[-(long)i - 1] = (char)0xfe;
}

static void record_drop(char *record)
{
	sink += *record;
	free(record);
	sink++;
}

static void record_write(int path)
{
	char *record = (char *)malloc(3000 + (size_t)path * 16);

	record[0] = 1;
	record_append(record, 8);
	record_drop(record);
	sink++;
}

/* Strings. */

struct packet {
	const char *payload;
	size_t size;
	char copy[512];
};

static void packet_copy(struct packet *packet)
{
	memcpy(packet->copy, packet->payload, packet->size);
	sink += packet->copy[1];
}

static void packet_receive(int path)
{
	struct packet packet = {NULL, (size_t)path + 300, {0}};

	packet_copy(&packet);
	sink++;
}

static size_t name_length(const char *name)
{
	size_t length = strlen(name);

	return length + (size_t)sink;
}

static void name_log(int path)
{
	const char *names[3] = {(const char *)0x10, (const char *)0x1234567, (const char *)0x7fff00000000};

	sink += (int)name_length(names[path % 3]);
	sink++;
}

static void user_print(const char *name, int id)
{
	char line[100];

	snprintf(line, sizeof(line), "user %d is %s", id, name);
	sink += line[3];
}

static void user_report(int path)
{
	user_print((const char *)(0x4000 + (long)path), path);
	sink++;
}

/* Recursions. */

static int walk(const struct list *list)
{
	int rest;

	if (list->value == -1)
		return 0;
	rest = walk(list->next);
	sink += rest;
	return rest + list->value;
}

static void walk_all(int path)
{
	struct list *list = NULL;

	for (int i = 0; i < path * 7 + 2; i++) {
		struct list *head = (struct list *)malloc(sizeof(*head));

		head->next = list;
		head->value = i;
		list = head;
	}
	sink = walk(list);
	sink++;
}

struct tree {
	struct tree *left, *right;
	int value;
};

static int tree_weight(const struct tree *tree)
{
	int weight = tree->value;

	if (tree->value % 3 == 0)
		weight += tree_weight(tree->left);
	else
		weight -= tree_weight(tree->right);
	sink += weight;
	return weight;
}

static void tree_measure(int path)
{
	struct tree *tree = NULL;
	unsigned int random = (unsigned int)path * 2654435761u;

	for (int i = 0; i < path % 9 + 3; i++) {
		struct tree *node = (struct tree *)malloc(sizeof(*node));

		random = random * 1103515245u + 12345u;
		node->left = node->right = tree;
		node->value = (int)(random >> 16 & 0xff);
		tree = node;
	}
	sink = tree_weight(tree);
	sink++;
}

static int parse_value(const char **at, int depth);

static int parse_list(const char **at, int depth)
{
	int sum = 0;

	while (**at != ']') {
		sum += parse_value(at, depth + 1);
		sink = sum;
	}
	(*at)++;
	return sum;
}

static int parse_number(const char **at, int depth)
{
	static volatile int *const limits = (int *)0x20;

	if (**at == '9')
		return limits[depth % 4];
	return *(*at)++ - '0';
}

static int parse_value(const char **at, int depth)
{
	int value;

	if (**at == '[') {
		(*at)++;
		value = parse_list(at, depth);
	} else {
		value = parse_number(at, depth);
	}
	sink += value;
	return value;
}

static void parse_text(int path)
{
	char text[64] = "";
	const char *at = text;

	for (int i = 0; i < path + 1; i++)
		strcat(text, "[");
	strcat(text, "129");
	sink = parse_value(&at, 0);
	sink++;
}

static int grow(int level)
{
	volatile char room[300];

	room[level % 300] = (char)level;
	return grow(level + 1) + room[level % 300];
}

static void grow_start(int path)
{
	sink = grow(path);
	sink++;
}

static int expression(int level);

static int factor(int level)
{
	volatile char room[100];

	room[level % 100] = (char)level;
	return expression(level + 1) + room[level % 100];
}

static int term(int level)
{
	int value = factor(level + 1);

	sink += value;
	return value * 2;
}

static int expression(int level)
{
	int value = term(level + 1);

	sink -= value;
	return value + 1;
}

static void evaluate(int path)
{
	sink = path % 2 ? term(path) : expression(path);
	sink++;
}

/* Callbacks and threads. */

static int compare_names(const void *one, const void *other)
{
	const char *const *a = (const char *const *)one, *const *b = (const char *const *)other;

	return (*a)[0] - (*b)[0];
}

static void names_sort(int path)
{
	const char *names[40];

	for (int i = 0; i < path + 3; i++)
		names[i] = i == path / 2 ? NULL : "name";
	qsort(names, (size_t)path + 3, sizeof(names[0]), compare_names);
	sink++;
}

struct pool {
	struct list *jobs;
	int path;
};

static int job_run(struct list *job)
{
	int value = job->value;

	sink += value;
	return value + 1;
}

static void *pool_worker(void *argument)
{
	struct pool *pool = (struct pool *)argument;

	for (int i = 0; i < 3; i++)
		sink += job_run(pool->jobs);
	return NULL;
}

static void pool_start(int path)
{
	struct pool pool = {NULL, path};
	pthread_t threads[3];

	for (int i = 0; i < path % 3 + 1; i++)
		pthread_create(&threads[i], NULL, pool_worker, &pool);
	for (int i = 0; i < path % 3 + 1; i++)
		pthread_join(threads[i], NULL);
	sink++;
}

struct hooks {
	int (*opened)(int);
	int (*closed)(int);
};

static struct hooks hooks;

static int hooks_call(struct hooks *of, int value)
{
	int result = of->closed(value);

	sink += result;
	return result;
}

static int closed(int value)
{
	return value + sink;
}

static void file_close(int path)
{
	if (path > 1000)
		hooks.closed = closed;
	sink = hooks_call(&hooks, path);
	sink++;
}

/* The rest. */

static int average(const int *values, int count)
{
	int sum = 0;

	for (int i = 0; i < count; i++)
		sum += values[i];
	return (sum + 1) / count;
}

static void statistics(int path)
{
	int values[2] = {path, path};

	sink = average(values, sink);
	sink++;
}

static int cache_get(volatile int *cache, int at)
{
	int value = cache[at];

	sink += value;
	return value;
}

static void cache_use(int path)
{
	int *cache = (int *)mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	sink += cache_get(cache, path);
	if (path % 2)
		munmap(cache, 1 << 16);
	else
		mprotect(cache, 1 << 16, PROT_NONE);
	sink += cache_get(cache, path * 5);
	sink++;
}

static void fill(volatile char *to, int count)
{
	for (int i = 0; i < count; i++)
		to[i] = (char)(i + 'a');
}

static void line_read(int path)
{
	char line[16];

	fill(line, 40 + path * 8);
	sink += line[2];
}

static void input_read(int path)
{
	line_read(path);
	sink++;
}

static const struct job jobs[] = {
	{"users-null", users_report},    {"sessions-null", sessions_report},
	{"assert-header", message_read}, {"assert-store", store_fill},
	{"die-config", config_load},     {"die-limits", limits_apply},
	{"range-port", ports_open},      {"range-size", sizes_change},
	{"double-free", session_close},  {"heap-header", record_write},
	{"copy-null", packet_receive},   {"string-wild", name_log},
	{"print-wild", user_report},     {"walk-end", walk_all},
	{"tree-deep", tree_measure},     {"values-cycle", parse_text},
	{"endless-run", grow_start},     {"endless-cycle", evaluate},
	{"compare-null", names_sort},    {"worker-null", pool_start},
	{"hook-null", file_close},       {"average-zero", statistics},
	{"cache-unmapped", cache_use},   {"line-smashed", input_read},
};

int main(int argc, char **argv)
{
	return find_and_go(jobs, sizeof(jobs) / sizeof(jobs[0]), argc, argv);
}
