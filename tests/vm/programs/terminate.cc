/* SPDX-License-Identifier: MIT */
/*
 * Is ended by std::terminate(): `terminate CASE`.
 *
 *   uncaught   an exception that nobody catches
 *   noexcept   one that would be caught, if it could leave apply()
 *   scoped     the same; on its way a destructor runs
 *   destructor one that a destructor throws
 *   rethrow    `throw;`, and there is no exception
 *   by-hand    calls std::terminate() in a function that a catch surrounds
 *   cancel     pthread_cancel() of a thread in a function that is noexcept
 *   exit       pthread_exit() in one
 *   joinable   destroys a thread that was not joined
 *   handler    an exception that nobody catches, with a handler of its own that aborts
 *   swallow    catches the end of its thread
 *   pure       calls a virtual function that has no body yet
 *   listed     one that a list of exceptions doesn't have, which is noexcept since C++17
 *   alone      `throw;`, and there is neither an exception nor a catch
 *   again      `throw;` of an exception that nobody else catches
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <thread>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

struct Guard {
	int n;
	NOINLINE ~Guard() { asm volatile("" ::"r"(n)); }
};

NOINLINE static void load(int n)
{
	if (n > 0)
		throw std::runtime_error("bad config");
}

NOINLINE static void apply(int n) noexcept { load(n); }

NOINLINE static void listed(int n) throw() { load(n + 1); }

NOINLINE static void scoped(int n)
{
	Guard guard{ n };
	load(n);
}

NOINLINE static void apply_scoped(int n) noexcept { scoped(n); }

struct Thrower {
	int n;
	NOINLINE ~Thrower() { load(n); }
};

NOINLINE static void destroy(int n)
{
	Thrower thrower{ n };
	asm volatile("");
}

NOINLINE static void report() { throw; }

NOINLINE static void pass_on(int n)
{
	try {
		load(n);
	} catch (...) {
		throw;
	}
}

NOINLINE static void give_up() { std::terminate(); }

NOINLINE static void wait_here() noexcept
{
	for (;;)
		pause();
}

static void *waiter(void *)
{
	wait_here();
	return nullptr;
}

NOINLINE static void leave() noexcept { pthread_exit(nullptr); }

static void *leaver(void *)
{
	leave();
	return nullptr;
}

static void *swallow(void *)
{
	try {
		for (;;)
			pause();
	} catch (...) {
	}
	return nullptr;
}

static void handler() { abort(); }

struct Begun {
	NOINLINE Begun() { call(); }
	virtual ~Begun() {}
	NOINLINE void call() { body(); }
	virtual void body() = 0;
};

struct Done : Begun {
	void body() override {}
};

static void run(void *(*body)(void *), bool cancels)
{
	pthread_t thread;

	pthread_create(&thread, nullptr, body, nullptr);
	if (cancels) {
		usleep(20000);
		pthread_cancel(thread);
	}
	pthread_join(thread, nullptr);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	auto is = [what](const char *name) { return !strcmp(what, name); };

	try {
		if (is("noexcept"))
			apply(argc);
		if (is("listed"))
			listed(argc);
		if (is("scoped"))
			apply_scoped(argc);
		if (is("destructor"))
			destroy(argc);
		if (is("rethrow"))
			report();
		if (is("by-hand"))
			give_up();
		if (is("cancel"))
			run(waiter, true);
		if (is("exit"))
			run(leaver, false);
		if (is("swallow"))
			run(swallow, true);
		if (is("joinable"))
			std::thread thread([] { pause(); });
	} catch (...) {
		puts("caught");
	}
	if (is("pure"))
		Done done;
	if (is("again"))
		pass_on(argc);
	if (is("alone"))
		report();
	if (is("handler"))
		std::set_terminate(handler);
	if (is("uncaught") || is("handler"))
		load(argc);
	return 3;
}
