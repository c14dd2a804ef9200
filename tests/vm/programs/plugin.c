/* SPDX-License-Identifier: MIT */
/* What hidden.c loads. */
void plugin_touch(void);

void plugin_touch(void)
{
	*(volatile int *)0x18 = 1;
}
