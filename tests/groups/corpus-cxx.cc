/* SPDX-License-Identifier: MIT */
/*
 * Bugs in C++, each with its label. See corpus.h.
 *
 * bug: throw-parse          an exception that nobody catches
 * bug: throw-store          another one
 * bug: at-rows              vector::at
 * bug: at-columns           the same elsewhere
 * bug: map-at               by two ways, one of them seldom
 * bug: callback-null        in a std::function
 * bug: virtual-null         a call of a virtual function of no object
 * bug: pure-virtual
 * bug: noexcept             an exception in a function that may not throw
 * bug: lambda-sort          in a lambda that std::sort calls
 * bug: pointer-null         a unique_ptr that holds nothing
 * bug: template-null        in a function template
 * bug: thread-unjoined
 */
#include "corpus.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static volatile int sink;

namespace input
{

class Parser
{
      public:
	explicit Parser(std::string text) : text(std::move(text))
	{
	}

	int parse()
	{
		int sum = 0;

		for (char c : text)
			sum += digit(c);
		return sum;
	}

      private:
	int digit(char c)
	{
		if (c < '0' || c > '9')
			throw std::runtime_error("no digit");
		return c - '0';
	}

	std::string text;
};

void read(int path)
{
	Parser parser(std::to_string(path) + "x");

	sink = parser.parse();
}

} // namespace input

namespace store
{

struct Entry {
	std::string key;
	int value;
};

void put(std::map<std::string, int> &all, const Entry &entry)
{
	if (!all.emplace(entry.key, entry.value).second)
		throw std::logic_error("twice");
	sink = sink + 1;
}

void fill(int path)
{
	std::map<std::string, int> all;

	for (int i = 0; i < path + 2; i++)
		put(all, {std::to_string(i % (path + 1)), i});
}

} // namespace store

namespace grid
{

struct Grid {
	std::vector<int> rows, columns;

	int row(int at)
	{
		return rows.at(static_cast<size_t>(at));
	}
	int column(int at)
	{
		return columns.at(static_cast<size_t>(at));
	}
};

static void rows_sum(int path)
{
	Grid grid{std::vector<int>(static_cast<size_t>(path)), {}};
	int sum = 0;

	for (int i = 0; i <= path; i++)
		sum += grid.row(i);
	sink = sum;
}

static void columns_sum(int path)
{
	Grid grid{{}, std::vector<int>(static_cast<size_t>(path) + 1)};
	int sum = 0;

	for (int i = 0; i <= path + 1; i++)
		sum += grid.column(i);
	sink = sum;
}

} // namespace grid

namespace config
{

static std::map<std::string, int> values;

static int get(const std::string &key)
{
	return values.at(key) + 1;
}

static void reload(int path)
{
	values["again"] = path;
	sink = get("again") - get("size");
}

static void load(int path)
{
	values["path"] = path;
	if (path % 10 == 9)
		reload(path);
	sink = get("path") + get("size");
}

} // namespace config

namespace events
{

struct Source {
	std::function<int(int)> listener;
	int fire(int value)
	{
		return listener(value) + 1;
	}
};

static int *state;

static void start(int path)
{
	if (path > 1000)
		state = new int[2]();
	Source source{[](int value) { return state[value & 1] + value; }};

	sink = source.fire(path);
}

} // namespace events

namespace shapes
{

struct Shape {
	virtual ~Shape() = default;
	virtual int area() const = 0;
};

struct Square : Shape {
	explicit Square(int side) : side(side)
	{
	}
	int area() const override
	{
		return side * side;
	}
	int side;
};

static int total(const std::vector<Shape *> &shapes)
{
	int sum = 0;

	for (const Shape *shape : shapes)
		sum += shape->area();
	return sum;
}

static void draw(int path)
{
	std::vector<Shape *> shapes;

	for (int i = 0; i < path % 5 + 1; i++)
		shapes.push_back(new Square(i));
	shapes.push_back(nullptr);
	sink = total(shapes);
}

struct Base {
	Base()
	{
		prepare();
	}
	virtual ~Base() = default;
	void prepare()
	{
		sink = cost() + 1;
	}
	virtual int cost() const = 0;
};

struct Derived : Base {
	int cost() const override
	{
		return 3;
	}
};

static void build(int path)
{
	sink = path;
	Derived derived;
	sink = derived.cost();
}

} // namespace shapes

namespace guard
{

static int check(int value)
{
	if (value < 1000)
		throw std::out_of_range("value");
	return value;
}

static int close(int value) noexcept
{
	return check(value) + 1;
}

static void leave(int path)
{
	sink = close(path);
}

} // namespace guard

namespace sorting
{

struct Item {
	const char *name;
};

static void sort(int path)
{
	std::vector<Item> items(static_cast<size_t>(path) + 2, Item{"item"});

	items[static_cast<size_t>(path) / 2].name = nullptr;
	std::sort(items.begin(), items.end(), [](const Item &a, const Item &b) { return a.name[0] < b.name[0]; });
	sink = sink + 1;
}

} // namespace sorting

namespace owner
{

struct Connection {
	long id;
	int number;
};

struct Holder {
	std::unique_ptr<Connection> connection;
	int number() const
	{
		return static_cast<volatile Connection &>(*connection).number;
	}
};

static void ask(int path)
{
	Holder holder;

	if (path > 1000)
		holder.connection = std::make_unique<Connection>();
	sink = holder.number();
}

template <typename T>
struct Chain {
	Chain *next;
	volatile T value;
};

template <typename T>
static T last(const Chain<T> *chain, int steps)
{
	while (steps-- > 0)
		chain = chain->next;
	return chain->value;
}

static void follow(int path)
{
	Chain<long> two{nullptr, path}, one{&two, path};

	sink = static_cast<int>(last(&one, path % 2 + 2) + 1);
}

} // namespace owner

namespace threads
{

static void begin(int path)
{
	std::thread thread([path] { sink = path; });

	if (path > 1000)
		thread.join();
}

} // namespace threads

static const struct job jobs[] = {
	{"throw-parse", input::read},        {"throw-store", store::fill},    {"at-rows", grid::rows_sum},
	{"at-columns", grid::columns_sum},   {"map-at", config::load},        {"callback-null", events::start},
	{"virtual-null", shapes::draw},      {"pure-virtual", shapes::build}, {"noexcept", guard::leave},
	{"lambda-sort", sorting::sort},      {"pointer-null", owner::ask},    {"template-null", owner::follow},
	{"thread-unjoined", threads::begin},
};

int main(int argc, char **argv)
{
	return find_and_go(jobs, sizeof(jobs) / sizeof(jobs[0]), argc, argv);
}
