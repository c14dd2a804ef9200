/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C++: the exception that the thread has in hand when it aborts, which is the one that std::terminate() was called for.
 *
 * libstdc++ and libc++abi keep it in a variable of the thread's own (__cxa_get_globals()), or libc++abi behind a key of pthread_setspecific(). Where
 * that lies among the thread's data isn't known, but what it points to bears the mark of the compiler. what() can't be called from here: its code is
 * followed (machine.bpf.h).
 */
#ifndef FL_RUNTIME_CXX_BPF_H
#define FL_RUNTIME_CXX_BPF_H

#include "machine.bpf.h"
#include "text.bpf.h"

/* struct __cxa_exception, libsupc++/unwind-cxx.h: the object is behind it. */
#define FL_CXX_CLASS_AT  80                    /* unwindHeader.exception_class */
#define FL_CXX_HEADER    112                   /* bytes; at its begin is the type */
#define FL_CXX_CLASS     0x474e5543432b2b00ULL /* "GNUCC++\0" */
#define FL_CXX_DEPENDENT (FL_CXX_CLASS | 1)    /* std::rethrow_exception(): the object's address is the first word */

/* The same of libc++abi, src/cxa_exception.h: the type is as far before the object. */
#define FL_LIBCXX_CLASS_AT  96
#define FL_LIBCXX_HEADER    128
#define FL_LIBCXX_CLASS     0x434c4e47432b2b00ULL /* "CLNGC++\0" */
#define FL_LIBCXX_DEPENDENT (FL_LIBCXX_CLASS | 1) /* the object's address is the second word */

/* glibc: in the table of the modules' variables of a thread (dtv_t). */
#define FL_CXX_MODULES 12
#define FL_CXX_WORDS   64 /* of each module's variables */

FL_SCRATCH(
	fl_cxx_words, struct { u64 words[FL_CXX_WORDS]; });

/* The object of the exception whose header is at `header`; 0: there is no header. Global, or the verifier would follow it for each word. */
__noinline u64 fl_cxx_object_of(u64 header)
{
	u64 mark = 0, other = 0, primary = 0;

	if (header & 7 || header < fl_page_bytes ||
	    bpf_probe_read_user(&mark, sizeof(mark), (const void *)(header + FL_CXX_CLASS_AT)) ||
	    bpf_probe_read_user(&other, sizeof(other), (const void *)(header + FL_LIBCXX_CLASS_AT)))
		return 0;
	if (mark == FL_CXX_CLASS)
		return header + FL_CXX_HEADER;
	if (other == FL_LIBCXX_CLASS)
		return header + FL_LIBCXX_HEADER;
	if (mark == FL_CXX_DEPENDENT)
		bpf_probe_read_user(&primary, sizeof(primary), (const void *)header);
	else if (other == FL_LIBCXX_DEPENDENT)
		bpf_probe_read_user(&primary, sizeof(primary), (const void *)(header + sizeof(u64)));
	return primary;
}

/* The same of the header that is at `*pointer`. */
__noinline u64 fl_cxx_object_behind(u64 pointer)
{
	u64 header = 0;

	if (pointer < fl_page_bytes || bpf_probe_read_user(&header, sizeof(header), (const void *)pointer))
		return 0;
	return fl_cxx_object_of(header);
}

/* Looks among the variables at `block` for the exception in hand. The first one is the address of its header. */
__noinline u64 fl_cxx_object_in(u64 block)
{
	u64 *words = fl_scratch(&fl_cxx_words);
	u64 object;

	if (!words)
		return 0;
	for (u32 i = 0; i < FL_CXX_WORDS; i++) {
		if (bpf_probe_read_user(words, sizeof(*words), (const void *)(block + i * sizeof(u64))))
			return 0;
		object = fl_cxx_object_of(words[0]);
		if (object)
			return object;
	}
	return 0;
}

/* Looks among what the keys of the thread lead to, of which glibc keeps the first 32 as pairs of a number and a pointer in the thread's data. */
__noinline u64 fl_cxx_object_of_keys(u64 data)
{
	u64 *words = fl_scratch(&fl_cxx_words), object;

	if (!words || bpf_probe_read_user(words, FL_CXX_WORDS * sizeof(u64), (const void *)(data + FL_THREAD_KEYS_AT)))
		return 0;
	for (u32 i = 1; i < FL_CXX_WORDS; i += 2) {
		object = fl_cxx_object_behind(words[i]);
		if (object)
			return object;
	}
	return 0;
}

/* The exception that the thread has in hand; 0: none is known. */
__noinline u64 fl_cxx_object(u64 data)
{
	u64 head[2] = {}, block = 0, object;

	if (bpf_probe_read_user(head, sizeof(head), (const void *)data) || !fl_is_thread_head(head, data))
		return 0;
	for (u32 module = 1; module <= FL_CXX_MODULES; module++) {
		if (bpf_probe_read_user(&block, sizeof(block), (const void *)(fl_thread_modules(head) + module * 16)))
			break;
		/* -1: not made yet. */
		if (block < fl_page_bytes || block == ~0ULL)
			continue;
		object = fl_cxx_object_in(block);
		if (object)
			return object;
	}
	return FL_THREAD_KEYS_AT ? fl_cxx_object_of_keys(data) : 0;
}

/* The kinds of types of types, abi::__class_type_info and its like. */
enum fl_cxx_kind {
	FL_CXX_OTHER = 0, /* of no class */
	FL_CXX_PLAIN,     /* of a class that is derived from none */
	FL_CXX_SINGLE,    /* from one, whose object is at the begin of its own */
	FL_CXX_MULTIPLE,
};

#define FL_CXX_TYPES 8 /* of a hierarchy are looked at */
#define FL_CXX_BASES 4 /* of each of them */

/* A part of the object that is of one of its types. */
struct fl_cxx_part {
	u64 type;
	u64 object;
};
struct fl_cxx_search {
	struct fl_cxx_part parts[FL_CXX_TYPES];
	u64 count;
	char name[24];
};
FL_SCRATCH(fl_cxx_searches, struct fl_cxx_search);

/* Reads the name of a type, struct std::type_info. Returns its length with the NUL. */
static __always_inline long fl_read_cxx_name(struct fl_cxx_search *search, u64 type)
{
	u64 text = 0;

	if (bpf_probe_read_user(&text, sizeof(text), (const void *)(type + sizeof(u64))))
		return -1;
	return bpf_probe_read_user_str(search->name, sizeof(search->name), (const void *)text);
}

/* What kind of a type is this? The type of it says so: "N10__cxxabiv120__si_class_type_infoE". */
__noinline int fl_cxx_kind_of(u64 type)
{
	struct fl_cxx_search *search = fl_scratch(&fl_cxx_searches);
	u64 table = 0, own = 0;
	char *name;

	if (!search || bpf_probe_read_user(&table, sizeof(table), (const void *)type) ||
	    bpf_probe_read_user(&own, sizeof(own), (const void *)(table - sizeof(u64))) ||
	    fl_read_cxx_name(search, own) != sizeof(search->name))
		return FL_CXX_OTHER;
	name = search->name;
	if (name[0] != 'N' || name[5] != 'c' || name[10] != 'i' || name[12] != '1' || name[15] != '_')
		return FL_CXX_OTHER;
	if (name[13] == '1' && name[14] == '7' && name[17] == 'c')
		return FL_CXX_PLAIN;
	if (name[13] == '2' && name[14] == '0' && name[17] == 's')
		return FL_CXX_SINGLE;
	return name[13] == '2' && name[14] == '1' && name[17] == 'v' ? FL_CXX_MULTIPLE : FL_CXX_OTHER;
}

/* Is this type std::exception? Its name is "St9exception". */
__noinline int fl_is_cxx_exception(u64 type)
{
	struct fl_cxx_search *search = fl_scratch(&fl_cxx_searches);

	return search && fl_read_cxx_name(search, type) == 13 && search->name[0] == 'S' && search->name[1] == 't' &&
	       search->name[2] == '9' && *(u64 *)(search->name + 4) == 0x6e6f697470656378ULL /* "xception" */;
}

/* Notes a part of the object, which is to be looked at. */
__noinline int fl_add_cxx_part(u64 type, u64 object)
{
	struct fl_cxx_search *search = fl_scratch(&fl_cxx_searches);
	u32 index;

	if (!search)
		return 1;
	index = search->count;
	barrier_var(index);
	if (index >= FL_CXX_TYPES)
		return 1;
	search->parts[index].type = type;
	search->parts[index].object = object;
	search->count = index + 1;
	return 0;
}

/* The same for the parts that the class `type`, which is derived from several or virtually, is made of: struct __vmi_class_type_info. */
__noinline int fl_add_cxx_bases(u64 type, u64 object)
{
	struct {
		u64 type;
		s64 place; /* flags in the lowest byte: virtual, public; above them where its object is */
	} base;
	u32 count[2] = {}; /* flags, number */
	u64 table = 0;
	s64 offset;

	if (bpf_probe_read_user(count, sizeof(count), (const void *)(type + 2 * sizeof(u64))))
		return 1;
	for (u32 i = 0; i < FL_CXX_BASES; i++) {
		if (i >= count[1] ||
		    bpf_probe_read_user(&base, sizeof(base), (const void *)(type + 3 * sizeof(u64) + i * sizeof(base))))
			return 1;
		/* As a catch of it sees it, which std::terminate()'s own is. */
		if (!(base.place & 2))
			continue;
		offset = base.place >> 8;
		/* For a virtual base the virtual table has the offset. */
		if (base.place & 1 && (bpf_probe_read_user(&table, sizeof(table), (const void *)object) ||
				       bpf_probe_read_user(&offset, sizeof(offset), (const void *)(table + offset))))
			return 1;
		fl_add_cxx_part(base.type, object + offset);
	}
	return 0;
}

/* Looks at part `index` of the object. Returns its address if it is the std::exception; 0: it isn't. */
__noinline u64 fl_cxx_exception_at(u32 index)
{
	struct fl_cxx_search *search = fl_scratch(&fl_cxx_searches);
	u64 type, object, base = 0;
	int kind;

	barrier_var(index);
	if (!search || index >= FL_CXX_TYPES || index >= search->count)
		return 0;
	type = search->parts[index].type;
	object = search->parts[index].object;
	if (type < fl_page_bytes)
		return 0;
	if (fl_is_cxx_exception(type))
		return object;
	kind = fl_cxx_kind_of(type);
	if (kind == FL_CXX_MULTIPLE)
		fl_add_cxx_bases(type, object);
	else if (kind == FL_CXX_SINGLE &&
		 !bpf_probe_read_user(&base, sizeof(base), (const void *)(type + 2 * sizeof(u64))))
		fl_add_cxx_part(base, object);
	return 0;
}

/* The std::exception that the object of this type is or has as a base. 0: none is known. */
__noinline u64 fl_cxx_exception_of(u64 type, u64 object)
{
	struct fl_cxx_search *search = fl_scratch(&fl_cxx_searches);
	u64 exception;

	if (!search)
		return 0;
	search->count = 0;
	fl_add_cxx_part(type, object);
	for (u32 i = 0; i < FL_CXX_TYPES; i++) {
		exception = fl_cxx_exception_at(i);
		if (exception)
			return exception;
	}
	return 0;
}

/* What what() of the exception says that the current thread, with its data at `data`, has in hand. */
__noinline int fl_add_cxx_what(u64 data)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 object = fl_cxx_object(data), type = 0, table = 0, what = 0, text;

	if (!record || !object || bpf_probe_read_user(&type, sizeof(type), (const void *)(object - FL_CXX_HEADER)))
		return 0;
	object = fl_cxx_exception_of(type, object);
	/* Two destructors stand before it. */
	if (!object || bpf_probe_read_user(&table, sizeof(table), (const void *)object) ||
	    bpf_probe_read_user(&what, sizeof(what), (const void *)(table + 2 * sizeof(u64))))
		return 0;
	text = fl_follow_function(what, object, data);
	if (text >= fl_page_bytes && text < FL_USER_SPACE_END)
		fl_add_text(record, &record->cxx_what, text, ~0ULL);
	return 0;
}

#endif
