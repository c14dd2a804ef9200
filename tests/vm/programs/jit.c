/*
 * Dies in code that it has generated: `inner_jit`, 6 bytes behind its beginning, called by `outer_jit`, which main has called. With an argument it
 * writes the map of this code for perf: "map" in its place; "old" the same, last written a year ago; "link" as a symbolic link to the map. "dump": a jitdump in the folder where it
 * runs instead, mapped as code.
 */
#include <elf.h>
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

struct load {
	unsigned int kind, total;
	unsigned long time;
	unsigned int pid, tid;
	unsigned long vma, address, bytes, index;
	char name[16];
};

/* tools/perf/Documentation/jitdump-specification.txt */
static void write_dump(const unsigned char *code)
{
	unsigned int header[10] = {0x4a695444, 1, sizeof(header), EM_X86_64, 0, getpid()};
	const char *names[] = {"old_jit", "outer_jit", "inner_jit"};
	unsigned long places[3][2] = {{0, 4096}, {0, 32}, {64, 10}};
	char path[64];
	snprintf(path, sizeof(path), "jit-%d.dump", getpid());
	int dump = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	write(dump, header, sizeof(header));
	for (int i = 0; i < 3; i++) {
		unsigned long address = (unsigned long)code + places[i][0];
		struct load load = {0, sizeof(load), 0, getpid(), getpid(), address, address, places[i][1], i, ""};
		strcpy(load.name, names[i]);
		write(dump, &load, sizeof(load));
	}
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0);
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
	if (argc > 1 && strcmp(argv[1], "dump") == 0)
		write_dump(code);
	else if (argc > 1)
		write_map(argv[1], code);
	((void (*)(void))code)();
	return 0;
}
