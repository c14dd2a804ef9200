/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hashes of frames and of places.
 */
#ifndef FL_HASH_BPF_H
#define FL_HASH_BPF_H

#include "kernel.h"

static __always_inline u64 fl_mix(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio: Knuth, TAOCP 6.4 */
	return hash ^ hash >> 32;
}

#endif
