/*
 * Dies in code that it has generated: `inner_jit`, 6 bytes behind its beginning, called by `outer_jit`, which main has called. With an argument it
 * writes the map of this code for perf: "map" in its place; "old" the same, last written a year ago; "link" as a symbolic link to the map.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void write_map(const char *kind, const unsigned char *code)
{
	char path[64], target[64];
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	snprintf(target, sizeof(target), "/tmp/perf-%d.target", getpid());
	int is_link = strcmp(kind, "link") == 0;
	FILE *map = fopen(is_link ? target : path, "w");
	/* what was there before, and two functions of now */
	fprintf(map, "%lx 1000 old_jit\n", (unsigned long)code);
	fprintf(map, "%lx 20 outer_jit\n%lx a inner_jit\n", (unsigned long)code, (unsigned long)code + 64);
	fclose(map);
	if (is_link)
		symlink(target, path);
	if (strcmp(kind, "old") == 0) {
		struct timespec times[2] = {{.tv_sec = time(NULL) - 365L * 24 * 3600}, {.tv_sec = time(NULL) - 365L * 24 * 3600}};
		utimensat(AT_FDCWD, path, times, 0);
	}
}

int main(int argc, char **argv)
{
	/* push rbp; mov rbp, rsp; movabs rax, inner; call rax; pop rbp; ret */
	unsigned char outer[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
	/* push rbp; mov rbp, rsp; xor eax, eax; mov eax, [rax]; pop rbp; ret */
	unsigned char inner[] = {0x55, 0x48, 0x89, 0xe5, 0x31, 0xc0, 0x8b, 0x00, 0x5d, 0xc3};
	unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *target = code + 64;
	memcpy(outer + 6, &target, 8);
	memcpy(code, outer, sizeof(outer));
	memcpy(target, inner, sizeof(inner));
	mprotect(code, 4096, PROT_READ | PROT_EXEC);
	if (argc > 1)
		write_map(argv[1], code);
	((void (*)(void))code)();
	return 0;
}
