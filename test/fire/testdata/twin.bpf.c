/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The lookups of bpf/balance.h at full speed, judged. */
#include "maps.h"

static __always_inline void pause(void)
{
}

#include "twin.h"
