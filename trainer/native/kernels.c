/* What the trainer's step spends its time with: one source for fp32 and for bf16.

   The functions' arguments are described in `trainer/kernels.py`. */

#include <math.h>
#include <string.h>
#include "vectors.h"

#define JOINED(a, b) a##b
#define NAMED(a, b) JOINED(a, b)
#define OF(name) NAMED(name, NAMED(_, T))

#define T f32
#include "rows.h"
#include "products.h"
#include "tree.h"
#undef T
#define T bf16
#include "rows.h"
#include "products.h"
#include "tree.h"
