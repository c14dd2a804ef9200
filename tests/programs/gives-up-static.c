/* SPDX-License-Identifier: MIT */
/*
 * gives-up.c with libc in its own file: only names tell what is libc's, and nothing says where its message is.
 *
 * build: -O2 -D_FORTIFY_SOURCE=2 -static
 */
#include "gives-up.c"
