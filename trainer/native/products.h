/* Products of matrices, numbers of type T, sums in fp32.

   C = b + A B + A' B' + …, rounded once. Of B a panel at a time is put together, as wide as registers
   hold sums; it stays in the cache while all rows of A pass by, and is not kept. What becomes of a
   row does not depend on the rows beside it, to the last bit. */

#ifndef PRODUCTS_H
#define PRODUCTS_H

#define VECTORS 4 /* of outputs, side by side in registers */
#define WIDE (VECTORS * LANES)
#define DEEP 6 /* rows of outputs in registers */
#define AT_ONCE 128 /* numbers of fp32 summed by themselves, so that little is lost */

typedef struct {
    const void *a, *b; /* (m, k) without gaps in a row; (k, n) without gaps in a row or a column */
    long a_row, b_row, b_column, k; /* strides, in numbers, and how many are multiplied */
} factors;

typedef struct {
    const factors *parts;
    const void *bias; /* (n), or none */
    void *c; /* (m, n) without gaps */
    word *room; /* (slots, room_each): a panel of all parts */
    long count, m, n, room_each;
} products;

INLINE long up(long x, long to) { return (x + to - 1) / to * to; }

/* Words that a panel of k numbers takes at most. */
long attune_panel(long k) { return k * WIDE; }

/* Whether they are quicker than the libraries that torch has: sums take 24 of 32 registers, and bf16
   is multiplied by units for vectors, beside which those for matrices are quicker yet. */
#if defined(__AVX512F__)
int attune_quick_products_f32(void) { return 1; }
#else
int attune_quick_products_f32(void) { return 0; }
#endif
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
int attune_quick_products_bf16(void) { return 1; }
#else
int attune_quick_products_bf16(void) { return 0; }
#endif

/* LANES rows of LANES words, so many bytes apart, as columns of a panel. */
INLINE void turned(const char *rows, long bytes, word *to)
{
#if defined(__AVX512F__)
    __m512i x[16], y[16];
    UNROLL for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(rows + i * bytes);
    UNROLL for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    UNROLL for (int i = 0; i < 16; i += 8)
        UNROLL for (int j = 0; j < 4; j++) {
            y[i + j] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0x88);
            y[i + j + 4] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0xdd);
        }
    UNROLL for (int i = 0; i < 8; i++) {
        _mm512_storeu_si512(to + i * WIDE, _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88));
        _mm512_storeu_si512(to + (i + 8) * WIDE, _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd));
    }
#else
    for (int n = 0; n < LANES; n++)
        for (int k = 0; k < LANES; k++)
            memcpy(to + k * WIDE + n, rows + n * bytes + k * sizeof(word), sizeof(word));
#endif
}
#endif

/* Sums += A (rows, k) B (k, vectors) of words; rows and vectors are known when this is compiled. */
INLINE void OF(add_up)(const int rows, const int vectors, const word *a, long by_row, long by_k,
                       const word *b, long ldb, long k, vec sums[DEEP][VECTORS])
{
    for (long i = 0; i < k; i++) {
        bits w[VECTORS];
        UNROLL for (int o = 0; o < vectors; o++) w[o] = *(const bits *)(b + i * ldb + o * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            word x = a[r * by_row + i * by_k];
            UNROLL for (int o = 0; o < vectors; o++) sums[r][o] = OF(add)(sums[r][o], x, w[o]);
        }
    }
}

/* Some columns of B as a panel (words of k, WIDE), zeros beyond them. */
static void OF(put_together)(const factors *f, long column, long some, word *panel)
{
    long side = sizeof(word) / sizeof(T), words = f->k / side, n = 0;
    const T *b = (const T *)f->b + column * f->b_column;
    if (some < WIDE) memset(panel, 0, sizeof(word) * words * WIDE);
    if (f->b_column == 1) {
        for (long k = 0; k < words; k++, panel += WIDE, b += side * f->b_row) {
            for (n = 0; n + LANES <= some; n += LANES)
                *(bits *)(panel + n) = OF(joined)(b + n, b + (side - 1) * f->b_row + n);
            for (; n < some; n++)
                for (long at = 0; at < side; at++) ((T *)(panel + n))[at] = b[at * f->b_row + n];
        }
        return;
    }
    for (long next; n < some; n = next) {
        long k = 0;
        next = n + LANES <= some ? n + LANES : n + 1;
        for (; next == n + LANES && k + LANES <= words; k += LANES)
            turned((const char *)(b + n * f->b_column + k * side), f->b_column * sizeof(T),
                   panel + k * WIDE + n);
        for (; n < next; n++)
            for (long i = k; i < words; i++)
                memcpy(panel + i * WIDE + n, b + n * f->b_column + i * side, sizeof(word));
    }
}

/* C (rows, some), where `vectors` of columns hold them. */
INLINE void OF(tile)(const int rows, const int vectors, const products *p, long row, long column,
                     long some, const word *panel)
{
    long side = sizeof(word) / sizeof(T);
    int whole = some == vectors * LANES;
    T line[WIDE] = {0};
    const T *bias = whole && p->bias ? (const T *)p->bias + column : line;
    if (!whole && p->bias) memcpy(line, (const T *)p->bias + column, sizeof(T) * some);
    vec sums[DEEP][VECTORS];
    UNROLL for (int o = 0; o < vectors; o++) {
        vec begun = OF(wide)(bias + o * LANES);
        UNROLL for (int r = 0; r < rows; r++) sums[r][o] = begun;
    }
    for (const factors *f = p->parts, *end = f + p->count; f < end; f++) {
        const word *a = (const word *)((const T *)f->a + row * f->a_row);
        long words = f->k / side, by_row = f->a_row / side;
        if (side > 1) { /* whose rounding outweighs what any order of sums could mend */
            OF(add_up)(rows, vectors, a, by_row, 1, panel, WIDE, words, sums);
            panel += words * WIDE;
            continue;
        }
        for (long k = 0; k < words; k += AT_ONCE) {
            long some = words - k < AT_ONCE ? words - k : AT_ONCE;
            vec apart[DEEP][VECTORS];
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int o = 0; o < vectors; o++) apart[r][o] = all_of(0);
            OF(add_up)(rows, vectors, a + k, by_row, 1, panel, WIDE, some, apart);
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int o = 0; o < vectors; o++) sums[r][o] += apart[r][o];
            panel += some * WIDE;
        }
    }
    T *c = (T *)p->c + row * p->n + column;
    UNROLL for (int r = 0; r < rows; r++, c += p->n) {
        T *to = whole ? c : line;
        UNROLL for (int o = 0; o < vectors; o++) OF(write)(to + o * LANES, sums[r][o]);
        if (!whole) memcpy(c, line, sizeof(T) * some);
    }
}

/* Rows from `first` to `last` of some columns, whose panel is there. */
INLINE void OF(strip)(const int vectors, const products *p, long first, long last, long column,
                      long some, const word *panel)
{
    long row = first;
    for (; row + DEEP <= last; row += DEEP) OF(tile)(DEEP, vectors, p, row, column, some, panel);
    switch (last - row) {
    case 5: OF(tile)(5, vectors, p, row, column, some, panel); break;
    case 4: OF(tile)(4, vectors, p, row, column, some, panel); break;
    case 3: OF(tile)(3, vectors, p, row, column, some, panel); break;
    case 2: OF(tile)(2, vectors, p, row, column, some, panel); break;
    case 1: OF(tile)(1, vectors, p, row, column, some, panel); break;
    }
}

/* A slot has rows of its own, which lie in its cache, and puts all panels together for them. */
static void OF(some_rows)(const void *work, long slot, long slots)
{
    const products *p = work;
    long tiles = up(p->m, DEEP) / DEEP, side = sizeof(word) / sizeof(T);
    long first = tiles * slot / slots * DEEP, last = tiles * (slot + 1) / slots * DEEP;
    word *room = p->room + slot * p->room_each;
    if (last > p->m) last = p->m;
    if (first >= last) return;
    for (long column = 0; column < p->n; column += WIDE) {
        long some = p->n - column < WIDE ? p->n - column : WIDE;
        word *panel = room;
        for (const factors *f = p->parts, *end = f + p->count; f < end; f++) {
            OF(put_together)(f, column, some, panel);
            panel += f->k / side * WIDE;
        }
        if (some > 2 * LANES)
            OF(strip)(VECTORS, p, first, last, column, some, room);
        else if (some > LANES)
            OF(strip)(2, p, first, last, column, some, room);
        else
            OF(strip)(1, p, first, last, column, some, room);
    }
}

void OF(attune_products)(fork_call fork, long slots, const products *p)
{
    spread(fork, slots, OF(some_rows), p);
}
