/* Attention over a forest of rows, both directions, numbers of type T, sums in fp32.

   All places of a segment see some ranges before it, and of the segment itself what `hidden`
   leaves. A segment's keys and values under one head of them are put together once, and its queries
   pass by in tiles. A forest's tiles are shared out among slots by what they cost. Of the forward
   pass only the log of each row's sum of exponentials is kept. */

#ifndef TREE_H
#define TREE_H

#define MAX_LINE 256
#define TILE 48 /* rows of a tile: its places times the heads of a group */

typedef struct {
    long start, end, ranges; /* how many it sees before it */
    const long *before; /* their first places and ends */
    const unsigned char *hidden; /* (length, length) */
} segment;

typedef struct {
    const void *q, *k, *v; /* (N, heads or groups, size) */
    void *out; /* and all below without gaps */
    float *sums; /* (N, heads): log of a row's sum of exponentials */
    const void *d_out;
    void *d_q;
    float *d_kv; /* (slots, 2, N, groups, size): gradients of keys and values; zeros before */
    float *room; /* (slots, room_each) */
    const segment *segments;
    long count, tokens, heads, groups, size, room_each;
    long by_place[3], by_head[3]; /* strides of q, k and v, in numbers */
    double scale;
} tree;

/* Numbers of fp32 that a slot needs whose segments see at most `keys` places, their own included. */
long attune_tree_room(long keys, long size, long each)
{
    long wide = up(size, WIDE), columns = up(keys, WIDE), rows = up(each > TILE ? each : TILE, 2);
    return 5 * columns * wide + 5 * rows * columns + 4 * rows * wide + rows;
}

INLINE void add_row(float *to, const float *from, long size)
{
    long i = 0;
    for (; i + LANES <= size; i += LANES) write_f32(to + i, wide_f32(to + i) + wide_f32(from + i));
    for (; i < size; i++) to[i] += from[i];
}

INLINE long seen_by(const segment *s)
{
    long seen = s->end - s->start;
    for (long range = 0; range < s->ranges; range++)
        seen += s->before[2 * range + 1] - s->before[2 * range];
    return seen;
}
#endif

/* C (rows, WIDE) = or += A (rows, k) B (k, WIDE), of words; rows is known when this is compiled. */
INLINE void OF(block)(const int rows, const word *a, long by_row, long by_k, const word *b,
                      long ldb, float *c, long ldc, long k, int add)
{
    vec sums[DEEP][VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int o = 0; o < VECTORS; o++)
            sums[r][o] = add ? wide_f32(c + r * ldc + o * LANES) : all_of(0);
    OF(add_up)(rows, VECTORS, a, by_row, by_k, b, ldb, k, sums);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int o = 0; o < VECTORS; o++) write_f32(c + r * ldc + o * LANES, sums[r][o]);
}

/* The same for m rows and n columns, a multiple of WIDE. */
static void OF(product)(long m, long n, long k, const word *a, long by_row, long by_k,
                        const word *b, long ldb, float *c, long ldc, int add)
{
    for (long col = 0; col < n; col += WIDE, b += WIDE, c += WIDE) {
        long r = 0;
        for (; r + DEEP <= m; r += DEEP)
            OF(block)(DEEP, a + r * by_row, by_row, by_k, b, ldb, c + r * ldc, ldc, k, add);
        const word *rest = a + r * by_row;
        float *into = c + r * ldc;
        switch (m - r) {
        case 5: OF(block)(5, rest, by_row, by_k, b, ldb, into, ldc, k, add); break;
        case 4: OF(block)(4, rest, by_row, by_k, b, ldb, into, ldc, k, add); break;
        case 3: OF(block)(3, rest, by_row, by_k, b, ldb, into, ldc, k, add); break;
        case 2: OF(block)(2, rest, by_row, by_k, b, ldb, into, ldc, k, add); break;
        case 1: OF(block)(1, rest, by_row, by_k, b, ldb, into, ldc, k, add); break;
        }
    }
}

/* A row of `size` numbers as column `at` of words (words of size, columns). */
INLINE void OF(across)(const T *row, long size, word *into, long at, long columns)
{
    long side = sizeof(word) / sizeof(T), w = 0;
    into += at;
    for (; (w + 1) * side <= size; w++) memcpy(into + w * columns, row + w * side, sizeof(word));
    if (w * side < size) {
        into[w * columns] = 0;
        memcpy(into + w * columns, row + w * side, sizeof(T));
    }
}

/* Two rows of `size` numbers as one of words, or one alone where a word holds a number. */
INLINE void OF(beside)(const T *row, const T *next, long size, word *into)
{
    long side = sizeof(word) / sizeof(T), i = 0;
    for (; i + LANES <= size; i += LANES) *(bits *)(into + i) = OF(joined)(row + i, next + i);
    for (T *to = (T *)into; i < size; i++) {
        to[i * side] = row[i];
        if (side > 1) to[i * side + 1] = next[i];
    }
}

/* Rows of `size` numbers, `line` apart -> words (rows / numbers in a word, wide). */
static void OF(put_beside)(const T *from, long rows, long line, long size, word *into, long wide)
{
    static const T none[MAX_LINE]; /* beside the last row, if it is alone */
    long side = sizeof(word) / sizeof(T);
    for (long r = 0; r < rows; r += side, from += side * line, into += wide) {
        long alone = r + side > rows, done = 0;
        for (; alone && done < size; done += MAX_LINE) {
            long some = size - done < MAX_LINE ? size - done : MAX_LINE;
            OF(beside)(from + done, none, some, into + done);
        }
        if (!alone) OF(beside)(from, from + line, size, into);
    }
}

/* to = from times `by`, rounded. */
INLINE void OF(hand_on)(const float *from, float by, T *to, long size)
{
    long i = 0;
    for (; i + LANES <= size; i += LANES) OF(write)(to + i, wide_f32(from + i) * by);
    for (; i < size; i++) to[i] = OF(narrow)(from[i] * by);
}

/* A row of `size` numbers as one side of a row of words. */
INLINE void OF(insert)(const T *row, long size, word *into, long at)
{
    long side = sizeof(word) / sizeof(T), i = 0;
    for (; i + LANES <= size; i += LANES)
        *(bits *)(into + i) |= OF(words)(row + i) << (at * 8 * sizeof(T));
    for (T *to = (T *)into; i < size; i++) to[i * side + at] = row[i];
}

/* What a task works on. Rows of a tile: place after place, in each the heads of the group. */
typedef struct {
    const tree *t;
    const segment *s;
    long group, seen, before; /* places seen at most, and before the segment */
    long columns, wide, deep; /* places seen and size rounded up; words of a head */
    word *keys_across, *values_across; /* (deep, columns) */
    word *beside; /* (words of places, wide): keys; in the forward pass values */
    float *d_keys, *d_values; /* (columns, wide) */
    float *scores, *slopes; /* (rows, columns) */
    T *shares, *falls; /* (rows, columns), and gradients of scores */
    word *shares_beside; /* (words of rows, columns) */
    T *rows, *others; /* queries, and gradients of what was made: (rows, words of a head) */
    word *rows_beside; /* (words of rows, wide) */
    float *made, *totals; /* (rows, wide); of each row */
} OF(task);

static OF(task) OF(laid_out)(const tree *t, const segment *s, long group, float *room)
{
    long side = sizeof(word) / sizeof(T), each = t->heads / t->groups;
    long rows = up(each > TILE ? each : TILE, 2), seen = seen_by(s);
    OF(task) a = {.t = t, .s = s, .group = group, .seen = seen};
    a.before = seen - (s->end - s->start);
    a.columns = up(seen, WIDE), a.wide = up(t->size, WIDE), a.deep = up(t->size, side) / side;
    long all = a.columns * a.wide, tile = rows * a.columns, some = rows * a.wide;
    a.keys_across = (word *)room, a.values_across = a.keys_across + all;
    a.beside = a.values_across + all;
    a.d_keys = (float *)(a.beside + all), a.d_values = a.d_keys + all;
    a.scores = a.d_values + all, a.slopes = a.scores + tile;
    a.shares = (T *)(a.slopes + tile), a.falls = (T *)(a.slopes + 2 * tile);
    a.shares_beside = (word *)(a.slopes + 3 * tile), a.made = a.slopes + 4 * tile;
    a.rows = (T *)(a.made + some), a.others = (T *)(a.made + 2 * some);
    a.rows_beside = (word *)(a.made + 3 * some), a.totals = a.made + 4 * some;
    return a;
}

/* The keys and values that a segment sees, put together. */
static void OF(gather)(const OF(task) *a, int back)
{
    const tree *t = a->t;
    const segment *s = a->s;
    long side = sizeof(word) / sizeof(T), at = 0;
    memset(a->keys_across, 0, sizeof(word) * a->deep * a->columns);
    memset(a->beside, 0, sizeof(word) * (a->columns / side) * a->wide);
    if (back) memset(a->values_across, 0, sizeof(word) * a->deep * a->columns);
    for (long range = 0; range <= s->ranges; range++) {
        int own = range == s->ranges;
        long end = own ? s->end : s->before[2 * range + 1];
        for (long token = own ? s->start : s->before[2 * range]; token < end; token++, at++) {
            const T *k = (const T *)t->k + token * t->by_place[1] + a->group * t->by_head[1];
            const T *v = (const T *)t->v + token * t->by_place[2] + a->group * t->by_head[2];
            OF(across)(k, t->size, a->keys_across, at, a->columns);
            if (back) OF(across)(v, t->size, a->values_across, at, a->columns);
            OF(insert)(back ? k : v, t->size, a->beside + at / side * a->wide, at % side);
        }
    }
}

/* Rows of a tile from (N, heads, size) by strides, to (rows, words of a head). */
static void OF(pick)(const OF(task) *a, const void *from, long by_place, long by_head, long first,
                     long last, T *into)
{
    long each = a->t->heads / a->t->groups, size = a->t->size;
    long line = a->deep * (long)(sizeof(word) / sizeof(T));
    for (long token = first; token < last; token++)
        for (long head = 0; head < each; head++, into += line) {
            const T *row =
                (const T *)from + token * by_place + (a->group * each + head) * by_head;
            memcpy(into, row, sizeof(T) * size);
            if (line > size) into[size] = 0;
        }
}

/* Queries' scores before they are scaled, what is hidden taken out; how many columns they have. */
static long OF(score)(const OF(task) *a, long first, long last)
{
    const tree *t = a->t;
    long each = t->heads / t->groups, length = a->s->end - a->s->start;
    long own = last - a->s->start, columns = up(a->before + own, WIDE);
    OF(pick)(a, t->q, t->by_place[0], t->by_head[0], first, last, a->rows);
    OF(product)((last - first) * each, columns, a->deep, (word *)a->rows, a->deep, 1,
                a->keys_across, a->columns, a->scores, a->columns, 0);
    for (long token = first; token < last; token++) {
        const unsigned char *hidden = a->s->hidden + (token - a->s->start) * length;
        for (long head = 0; head < each; head++) {
            float *row = a->scores + ((token - first) * each + head) * a->columns + a->before;
            long i = 0;
            for (; i + LANES <= own; i += LANES) {
                bits out = (bits)(__builtin_convertvector(*(const marks *)(hidden + i), bits) != 0);
                write_f32(row + i, chosen(out, all_of(HIDDEN), wide_f32(row + i)));
            }
            for (; i < own; i++) row[i] = hidden[i] ? HIDDEN : row[i];
            for (; i < columns - a->before; i++) row[i] = HIDDEN;
        }
    }
    return columns;
}

static void OF(forward_tile)(const OF(task) *a, long first, long last)
{
    const tree *t = a->t;
    long side = sizeof(word) / sizeof(T), each = t->heads / t->groups;
    long rows = (last - first) * each, columns = OF(score)(a, first, last);
    float scale = t->scale;
    for (long r = 0; r < rows; r++) {
        const float *row = a->scores + r * a->columns;
        vec most = all_of(HIDDEN), sums = all_of(0);
        for (long i = 0; i < columns; i += LANES) most = larger(wide_f32(row + i), most);
        float top = largest(most) * scale;
        for (long i = 0; i < columns; i += LANES) {
            vec share = exponential(wide_f32(row + i) * scale - top);
            sums += share;
            OF(write)(a->shares + r * a->columns + i, share);
        }
        a->totals[r] = total(sums);
        t->sums[(first + r / each) * t->heads + a->group * each + r % each] =
            top + logf(a->totals[r]);
    }
    OF(product)(rows, a->wide, columns / side, (word *)a->shares, a->columns / side, 1, a->beside,
                a->wide, a->made, a->wide, 0);
    for (long r = 0; r < rows; r++) {
        long at = (first + r / each) * t->heads + a->group * each + r % each;
        OF(hand_on)(a->made + r * a->wide, 1 / a->totals[r], (T *)t->out + at * t->size, t->size);
    }
}

/* Shares, and from their gradients those of scores. The mean of a row's gradients comes from these
   themselves: with what was made, which is rounded, a share of nearly 1 would get a gradient of
   that rounding, where it has hardly any. */
static void OF(slope)(const OF(task) *a, long first, long columns, long rows)
{
    const tree *t = a->t;
    long each = t->heads / t->groups, line = a->columns;
    float scale = t->scale;
    for (long r = 0; r < rows; r++) {
        float sums = t->sums[(first + r / each) * t->heads + a->group * each + r % each];
        float *shares = a->scores + r * line, *slopes = a->slopes + r * line;
        vec means = all_of(0);
        for (long i = 0; i < columns; i += LANES) {
            vec share = exponential(wide_f32(shares + i) * scale - sums);
            means += share * wide_f32(slopes + i);
            write_f32(shares + i, share);
        }
        float mean = total(means);
        for (long i = 0; i < columns; i += LANES) {
            vec share = wide_f32(shares + i), slope = wide_f32(slopes + i) - mean;
            OF(write)(a->shares + r * line + i, share);
            OF(write)(a->falls + r * line + i, share * slope * scale);
        }
    }
}

static void OF(backward_tile)(const OF(task) *a, long first, long last)
{
    const tree *t = a->t;
    long side = sizeof(word) / sizeof(T), each = t->heads / t->groups, size = t->size;
    long rows = (last - first) * each, columns = OF(score)(a, first, last);
    long keys = a->before + last - a->s->start;
    long words = up(rows, side) / side, line = a->deep * side;
    OF(pick)(a, t->d_out, t->heads * size, size, first, last, a->others);
    OF(product)(rows, columns, a->deep, (word *)a->others, a->deep, 1, a->values_across, a->columns,
                a->slopes, a->columns, 0);
    OF(slope)(a, first, columns, rows);
    OF(put_beside)(a->shares, rows, a->columns, columns, a->shares_beside, a->columns);
    OF(put_beside)(a->others, rows, line, size, a->rows_beside, a->wide);
    OF(product)(keys, a->wide, words, a->shares_beside, 1, a->columns, a->rows_beside, a->wide,
                a->d_values, a->wide, 1);
    OF(put_beside)(a->falls, rows, a->columns, columns, a->shares_beside, a->columns);
    OF(put_beside)(a->rows, rows, line, size, a->rows_beside, a->wide);
    OF(product)(keys, a->wide, words, a->shares_beside, 1, a->columns, a->rows_beside, a->wide,
                a->d_keys, a->wide, 1);
    OF(product)(rows, a->wide, columns / side, (word *)a->falls, a->columns / side, 1, a->beside,
                a->wide, a->made, a->wide, 0);
    for (long r = 0; r < rows; r++) {
        long at = (first + r / each) * t->heads + a->group * each + r % each;
        OF(hand_on)(a->made + r * a->wide, 1, (T *)t->d_q + at * size, size);
    }
}

/* Add a task's gradients of keys and values to the slot's. */
static void OF(scatter)(const OF(task) *a, long slot)
{
    const tree *t = a->t;
    const segment *s = a->s;
    long each = t->tokens * t->groups * t->size, at = 0;
    float *d_k = t->d_kv + 2 * slot * each, *d_v = d_k + each;
    for (long range = 0; range <= s->ranges; range++) {
        int own = range == s->ranges;
        long end = own ? s->end : s->before[2 * range + 1];
        for (long token = own ? s->start : s->before[2 * range]; token < end; token++, at++) {
            long to = (token * t->groups + a->group) * t->size;
            add_row(d_k + to, a->d_keys + at * a->wide, t->size);
            add_row(d_v + to, a->d_values + at * a->wide, t->size);
        }
    }
}

/* A slot's share of the tiles: those that begin in its part of what all cost. */
INLINE void OF(share)(const tree *t, long slot, long slots, int back)
{
    long each = t->heads / t->groups, places = TILE / each > 0 ? TILE / each : 1;
    long cost = 0, whole = 0;
    for (long n = 0; n < t->count; n++)
        whole += t->groups * (t->segments[n].end - t->segments[n].start) * seen_by(t->segments + n);
    for (long n = 0; n < t->count; n++)
        for (long group = 0; group < t->groups; group++) {
            const segment *s = t->segments + n;
            long seen = seen_by(s), begun = 0;
            OF(task) a = OF(laid_out)(t, s, group, t->room + slot * t->room_each);
            for (long first = s->start; first < s->end; first += places) {
                long last = first + places < s->end ? first + places : s->end;
                long turn = cost * slots / whole;
                cost += (last - first) * seen;
                if (turn != slot) continue;
                if (!begun) {
                    OF(gather)(&a, back);
                    if (back) memset(a.d_keys, 0, 2 * sizeof(float) * a.columns * a.wide);
                    begun = 1;
                }
                if (back)
                    OF(backward_tile)(&a, first, last);
                else
                    OF(forward_tile)(&a, first, last);
            }
            if (begun && back) OF(scatter)(&a, slot);
        }
}

static void OF(forward_part)(const void *work, long slot, long slots)
{
    OF(share)(work, slot, slots, 0);
}
static void OF(backward_part)(const void *work, long slot, long slots)
{
    OF(share)(work, slot, slots, 1);
}

void OF(attune_tree)(fork_call fork, long slots, const tree *t)
{
    spread(fork, slots, OF(forward_part), t);
}
void OF(attune_tree_back)(fork_call fork, long slots, const tree *t)
{
    spread(fork, slots, OF(backward_part), t);
}
