/* SPDX-License-Identifier: MIT */
/*
 * Four bugs that end in abort(), whose frames in libc are nearly the same: `one-signature N` dies of
 *
 *   1  an exception that nobody catches, in parse()
 *   2  another one, in store()
 *   3  a failed assertion, in verify()
 *   4  abort(), in quit(), by a function that is inlined
 *
 * Each has a signature and a family of its own.
 */
#undef NDEBUG
#include <cassert>
#include <cstdlib>
#include <stdexcept>

__attribute__((noinline)) static void parse(int n)
{
	if (n == 1)
		throw std::runtime_error("parse");
}

__attribute__((noinline)) static void store(int n)
{
	if (n == 2)
		throw std::logic_error("store");
}

__attribute__((noinline)) static void verify(int n)
{
	assert(n != 3);
}

__attribute__((always_inline)) static inline void give_up(void)
{
	abort();
}

__attribute__((noinline)) static void quit(int n)
{
	if (n == 4)
		give_up();
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0;

	parse(n);
	store(n);
	verify(n);
	quit(n);
	return 0;
}
