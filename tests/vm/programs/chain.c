/* SPDX-License-Identifier: MIT */
/*
 * Dies in a stack that leads through many libraries. With LIBRARY it is one of them; else the program, which loads `folder`/link-000.so and so on,
 * `count` of them, and has the last one call the one before it, and so on, until `depth` of them are on the stack.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef int chain_t(void **next, int left);
chain_t chain_link;

#ifdef LIBRARY
int chain_link(void **next, int left)
{
	if (!left)
		return *(volatile int *)0x18;
	return ((chain_t *)*next)(next - 1, left - 1) + 1;
}
#else
int main(int argc, char **argv)
{
	int count = argc > 3 ? atoi(argv[2]) : 0;
	void **links = calloc(count + 1, sizeof(*links));

	for (int i = 0; i < count; i++) {
		char path[4096];
		void *library;

		snprintf(path, sizeof(path), "%s/link-%03d.so", argv[1], i);
		library = dlopen(path, RTLD_NOW);
		links[i] = library ? dlsym(library, "chain_link") : NULL;
		if (!links[i])
			return 1;
	}
	return ((chain_t *)links[count - 1])(&links[count - 2], atoi(argv[3]) - 1) + 1;
}
#endif
