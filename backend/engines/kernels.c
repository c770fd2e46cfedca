/* Decoding a few rows: products, norms, attention and whole layers. One thread, fp32 or bf16, sums in
   fp32.

   What counts is how fast weights are read. One row takes them as a single stream, as the hardware
   prefetches best; more take some outputs at a time and ask for the next ones while they compute.

   A row's numbers do not depend on the rows beside it, to the last bit: every sum runs over its lanes
   in the same order whatever the block, and attention begins at a row's first own token. */

#include <math.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define LINE 64 /* bytes */
#define PANEL 960 /* outputs whose sums are kept until they are rounded and written */
#define AT_ONCE 64 /* rows likewise */
#define HIDDEN -1e30f /* a score that gets no share */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef float f32;
typedef unsigned short bf16; /* the upper half of an fp32 number */
typedef unsigned bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef bf16 halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

static inline float number_f32(f32 x) { return x; }
static inline float number_bf16(bf16 x)
{
    union { unsigned bits; float number; } wide = {(unsigned)x << 16};
    return wide.number;
}
static inline f32 narrow_f32(float x) { return x; }
static inline bf16 narrow_bf16(float x) /* to the nearest, as every bf16 here */
{
    union { float number; unsigned bits; } wide = {x};
    return (wide.bits + 0x7fffu + (wide.bits >> 16 & 1u)) >> 16;
}

/* LANES numbers in fp32; the same rounded to type T; and written as T when they are rounded. */
static inline vec wide_f32(const f32 *x) { return *(const vec *)x; }
static inline vec wide_bf16(const bf16 *x)
{
    return (vec)(__builtin_convertvector(*(const halves *)x, bits) << 16);
}
static inline vec rounded_f32(vec x) { return x; }
static inline vec rounded_bf16(vec x)
{
    bits all = (bits)x;
    return (vec)((all + 0x7fffu + (all >> 16 & 1u)) & 0xffff0000u);
}
static inline void write_f32(f32 *y, vec x) { *(vec *)y = x; }
static inline void write_bf16(bf16 *y, vec x)
{
    *(halves *)y = __builtin_convertvector((bits)x >> 16, halves);
}

/* A vector of AT_ONCE_T numbers as it is multiplied, and sum + x w, lane by lane: in bf16 a lane
   may take two of them. */
typedef vec many_f32;
#define AT_ONCE_f32 LANES
static inline many_f32 load_f32(const f32 *x) { return wide_f32(x); }
static inline vec add_f32(vec sum, many_f32 x, many_f32 w) { return sum + w * x; }

#if defined(__AVX512BF16__)
typedef __m512bh many_bf16;
#define AT_ONCE_bf16 (2 * LANES)
static inline many_bf16 load_bf16(const bf16 *x) { return (__m512bh)_mm512_loadu_si512(x); }
static inline vec add_bf16(vec sum, many_bf16 x, many_bf16 w)
{
    return (vec)_mm512_dpbf16_ps((__m512)sum, x, w);
}
#else
typedef vec many_bf16;
#define AT_ONCE_bf16 LANES
static inline many_bf16 load_bf16(const bf16 *x) { return wide_bf16(x); }
static inline vec add_bf16(vec sum, many_bf16 x, many_bf16 w) { return sum + w * x; }
#endif

/* The sum over a vector, half by half. */
static inline float total(vec v)
{
#if LANES == 16
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif LANES == 8
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1);
    v += __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
    return v[0];
}

/* The sums over up to eight vectors, each as `total` has it: two are folded into one at a time. */
#if LANES == 16
#define PAIR(NAME, ...)                                                                           \
    static inline vec NAME(vec a, vec b) { return __VA_ARGS__; }
#define OF(...) __builtin_shufflevector(a, b, __VA_ARGS__)
PAIR(by_eight, OF(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                   OF(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
PAIR(by_four, OF(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                  OF(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
PAIR(by_two, OF(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                 OF(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
static inline void totals(const vec *v, long stride, int count, float *made)
{
    if (count <= 2) {
        for (int i = 0; i < count; i++) made[i] = total(v[i * stride]);
        return;
    }
    vec none = {0}, eights[4], fours[2];
    UNROLL for (int i = 0; i < 4; i++) {
        eights[i] = 2 * i < count ? by_eight(v[2 * i * stride],
                                             2 * i + 1 < count ? v[(2 * i + 1) * stride] : none)
                                  : none;
    }
    UNROLL for (int i = 0; i < 2; i++) fours[i] = by_four(eights[2 * i], eights[2 * i + 1]);
    /* Of vectors 0 to 7 two lanes each are left: 0, 4, 1, 5, 2, 6, 3, 7. */
    vec left = by_two(fours[0], fours[1]);
    left += __builtin_shufflevector(left, left, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    UNROLL for (int i = 0; i < 8; i++)
        if (i < count) made[i] = left[i % 4 * 4 + i / 4 * 2];
}
#else
static inline void totals(const vec *v, long stride, int count, float *made)
{
    for (int i = 0; i < count; i++) made[i] = total(v[i * stride]);
}
#endif

/* x (ROWS, in), W (OUTS, in), both of type T -> y (ROWS, OUTS) in rows of `out`. */
#define BLOCK(NAME, ROWS, OUTS, T)                                                                \
    static void NAME##_##T(const T *restrict x, const T *restrict w, float *restrict y, long in,  \
                           long out)                                                              \
    {                                                                                             \
        enum { TURN = 4 * LANES, PER_LINE = LINE / sizeof(T) };                                   \
        vec sums[ROWS][OUTS] = {0};                                                               \
        const T *next = w + OUTS * in;                                                            \
        long k = 0;                                                                               \
        for (; k + TURN <= in; k += TURN) {                                                       \
            if (OUTS > 1) {                                                                       \
                UNROLL for (int i = 0; i < OUTS * TURN / PER_LINE; i++)                           \
                    __builtin_prefetch(next + i * PER_LINE);                                      \
                next += OUTS * TURN;                                                              \
            }                                                                                     \
            UNROLL for (int j = 0; j < TURN; j += AT_ONCE_##T)                                    \
                UNROLL for (int o = 0; o < OUTS; o++) {                                           \
                    many_##T weight = load_##T(w + o * in + k + j);                               \
                    UNROLL for (int r = 0; r < ROWS; r++)                                         \
                        sums[r][o] = add_##T(sums[r][o], load_##T(x + r * in + k + j), weight);   \
                }                                                                                 \
        }                                                                                         \
        float made[OUTS][ROWS];                                                                   \
        UNROLL for (int o = 0; o < OUTS; o++) totals(&sums[0][o], OUTS, ROWS, made[o]);           \
        for (int r = 0; r < ROWS; r++)                                                            \
            for (int o = 0; o < OUTS; o++) {                                                      \
                float sum = made[o][r];                                                           \
                for (long i = k; i < in; i++)                                                     \
                    sum += number_##T(x[r * in + i]) * number_##T(w[o * in + i]);                 \
                y[r * out + o] = sum;                                                             \
            }                                                                                     \
    }

/* As many sums as there are registers for. */
#if LANES == 16
#define MOST_ROWS 6
#define OUTS 4
#else
#define MOST_ROWS 4
#define OUTS 3
#endif

/* x (rows, in), W (out, in) -> y in rows of `stride`. */
#define ROWS_BY_OUTS(T)                                                                           \
    BLOCK(block_1, 1, OUTS, T)                                                                    \
    BLOCK(block_2, 2, OUTS, T)                                                                    \
    BLOCK(block_3, 3, OUTS, T)                                                                    \
    BLOCK(block_4, 4, OUTS, T)                                                                    \
    BLOCK(block_5, 5, OUTS, T)                                                                    \
    BLOCK(block_6, 6, OUTS, T)                                                                    \
    BLOCK(single, 1, 1, T)                                                                        \
    static void product_##T(const T *x, const T *w, float *y, long rows, long in, long out,       \
                            long stride)                                                          \
    {                                                                                             \
        typedef void block(const T *, const T *, float *, long, long);                            \
        static block *const blocks[] = {single_##T,  block_1_##T, block_2_##T, block_3_##T,       \
                                        block_4_##T, block_5_##T, block_6_##T};                   \
        long together = rows > 1 ? OUTS : 1;                                                      \
        for (long o = 0; o < out;) {                                                              \
            long outs = o + together <= out ? together : 1;                                       \
            long turns = outs > 1 ? (rows + MOST_ROWS - 1) / MOST_ROWS : rows;                    \
            for (long r = 0; turns > 0; turns--) {                                                \
                long some = (rows - r + turns - 1) / turns;                                       \
                blocks[outs > 1 ? some : 0](x + r * in, w + o * in, y + r * stride + o, in,       \
                                            stride);                                              \
                r += some;                                                                        \
            }                                                                                     \
            o += outs;                                                                            \
        }                                                                                         \
    }

ROWS_BY_OUTS(f32)
ROWS_BY_OUTS(bf16)

/* y = x W' + b, or without b where there is none. A panel of sums stays in the cache, in rows that do
   not fall on the same places of it. */
static _Thread_local float sums[AT_ONCE][PANEL + LINE / 4];
#define LINEAR(NAME, T)                                                                           \
    void NAME(const T *x, const T *w, const T *b, T *y, long rows, long in, long out)             \
    {                                                                                             \
        for (; rows > 0; rows -= AT_ONCE, x += AT_ONCE * in, y += AT_ONCE * out) {                \
            long some = rows < AT_ONCE ? rows : AT_ONCE;                                          \
            for (long o = 0; o < out; o += PANEL) {                                               \
                long outs = out - o < PANEL ? out - o : PANEL, i;                                 \
                product_##T(x, w + o * in, sums[0], some, in, outs, PANEL + LINE / 4);            \
                for (long r = 0; r < some; r++) {                                                 \
                    T *made = y + r * out + o;                                                    \
                    for (i = 0; b && i < outs; i++) sums[r][i] += number_##T(b[o + i]);           \
                    for (i = 0; i + LANES <= outs; i += LANES)                                    \
                        write_##T(made + i, rounded_##T(wide_f32(sums[r] + i)));                  \
                    for (; i < outs; i++) made[i] = narrow_##T(sums[r][i]);                       \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
    }

LINEAR(attune_linear, f32)
LINEAR(attune_linear_bf16, bf16)

/* y = x / sqrt(mean(x^2) + eps) * w, row by row: in torch half a dozen calls. */
#define NORM(NAME, T)                                                                             \
    void NAME(const T *x, const T *w, T *y, double eps, long rows, long size)                     \
    {                                                                                             \
        for (long r = 0; r < rows; r++, x += size, y += size) {                                   \
            vec squares = {0};                                                                    \
            long i = 0;                                                                           \
            for (; i + LANES <= size; i += LANES) {                                               \
                vec here = wide_##T(x + i);                                                       \
                squares += here * here;                                                           \
            }                                                                                     \
            float sum = total(squares);                                                           \
            for (; i < size; i++) sum += number_##T(x[i]) * number_##T(x[i]);                     \
            float scale = 1 / sqrtf(sum / size + (float)eps);                                     \
            for (i = 0; i + LANES <= size; i += LANES) {                                          \
                vec normed = rounded_##T(wide_##T(x + i) * scale);                                \
                write_##T(y + i, rounded_##T(wide_##T(w + i) * normed));                          \
            }                                                                                     \
            for (; i < size; i++)                                                                 \
                y[i] = narrow_##T(number_##T(w[i]) *                                              \
                                  number_##T(narrow_##T(number_##T(x[i]) * scale)));              \
        }                                                                                         \
    }

NORM(attune_rms_norm, f32)
NORM(attune_rms_norm_bf16, bf16)

/* Each head of x (rows, heads, size) turned by its row's angles: of two halves a and b, which lie
   `size` / 2 apart, a cos - b sin and b cos + a sin. `size` is a multiple of 2 LANES. */
#define ROTATE(T)                                                                                 \
    static void rotate_##T(T *x, const T *cos, const T *sin, long rows, long heads, long size)    \
    {                                                                                             \
        long half = size / 2;                                                                     \
        for (long r = 0; r < rows; r++, cos += size, sin += size)                                 \
            for (long h = 0; h < heads; h++, x += size)                                           \
                for (long i = 0; i < half; i += LANES) {                                          \
                    vec a = wide_##T(x + i), b = wide_##T(x + half + i);                          \
                    vec turned_a = a * wide_##T(cos + i) - b * wide_##T(sin + i);                 \
                    vec turned_b = b * wide_##T(cos + half + i) + a * wide_##T(sin + half + i);   \
                    write_##T(x + i, rounded_##T(turned_a));                                      \
                    write_##T(x + half + i, rounded_##T(turned_b));                               \
                }                                                                                 \
    }

ROTATE(f32)
ROTATE(bf16)

/* e^x for x <= 0, relative error below 1e-6; 0 below -87. */
static inline vec exponential(vec x)
{
    whole seen = x > -87.0f;
    x = (vec)((whole)x & seen);
    whole n = __builtin_convertvector(x * 1.44269504f - 0.5f, whole); /* to the nearest */
    vec part = __builtin_convertvector(n, vec);
    vec r = x - part * 0.693359375f + part * 2.12194440e-4f; /* ln 2 in two parts */
    vec made = r * 1.3888889e-3f + 8.3333333e-3f;
    made = made * r + 4.1666667e-2f;
    made = made * r + 1.6666667e-1f;
    made = made * r + 0.5f;
    made = made * r + 1.0f;
    made = made * r + 1.0f;
    return (vec)((whole)(made * (vec)((n + 127) << 23)) & seen);
}

/* Scores of one head, `tokens` of them, to shares that sum to 1. */
static void soften(float *scores, const unsigned char *seen, long tokens, float scale)
{
    float most = HIDDEN, sum = 0;
    for (long t = 0; t < tokens; t++) {
        scores[t] = seen && !seen[t] ? HIDDEN : scores[t] * scale;
        most = scores[t] > most ? scores[t] : most;
    }
    vec sums = {0};
    long t = 0;
    for (; t + LANES <= tokens; t += LANES) {
        vec shares = exponential(*(vec *)(scores + t) - most);
        *(vec *)(scores + t) = shares;
        sums += shares;
    }
    sum = total(sums);
    for (; t < tokens; t++) sum += scores[t] = expf(scores[t] - most);
    for (t = 0; t < tokens; t++) scores[t] /= sum;
}

/* Attention of one token in each row: q (rows, groups, heads, size), k and v (rows, groups, tokens,
   size), of which a row is `per_row` and a group `per_group` numbers behind the one before; seen
   (rows, tokens) or none -> y like q. `size` is a multiple of LANES; scores: (heads, tokens). */
#define ATTEND(T)                                                                                 \
    static void attend_##T(const T *q, const T *k, const T *v, const unsigned char *seen, T *y,   \
                           float *scores, float scale, long rows, long groups, long heads,        \
                           long size, long tokens, long per_row, long per_group)                  \
    {                                                                                             \
        for (long r = 0; r < rows; r++) {                                                         \
            long first = 0;                                                                       \
            while (seen && first + 1 < tokens && !seen[first]) first++;                           \
            long own = tokens - first;                                                            \
            for (long g = 0; g < groups; g++) {                                                   \
                long at = r * per_row + g * per_group + first * size;                             \
                product_##T(q, k + at, scores, heads, size, own, own);                            \
                for (long h = 0; h < heads; h++) {                                                \
                    float *shares = scores + h * own;                                             \
                    soften(shares, seen ? seen + first : 0, own, scale);                          \
                    for (long d = 0; d < size; d += LANES) {                                      \
                        vec sum = {0};                                                            \
                        const T *value = v + at + d;                                              \
                        for (long t = 0; t < own; t++, value += size)                             \
                            sum += wide_##T(value) * shares[t];                                   \
                        write_##T(y + h * size + d, rounded_##T(sum));                            \
                    }                                                                             \
                }                                                                                 \
                q += heads * size;                                                                \
                y += heads * size;                                                                \
            }                                                                                     \
            if (seen) seen += tokens;                                                             \
        }                                                                                         \
    }

ATTEND(f32)
ATTEND(bf16)

/* 1 / (1 + e^-x) */
static inline vec sigmoid(vec x)
{
    vec one = {0}, small = exponential((vec)((whole)x | (int)0x80000000));
    one += 1;
    whole negative = x < 0;
    return (vec)(((whole)small & negative) | ((whole)one & ~negative)) / (1 + small);
}

/* y += x, and gate = silu(gate) up, each rounded as it would be between two calls. */
#define BETWEEN(T)                                                                                \
    static void plus_##T(T *y, const T *x, long count)                                            \
    {                                                                                             \
        long i = 0;                                                                               \
        for (; i + LANES <= count; i += LANES)                                                    \
            write_##T(y + i, rounded_##T(wide_##T(y + i) + wide_##T(x + i)));                     \
        for (; i < count; i++) y[i] = narrow_##T(number_##T(y[i]) + number_##T(x[i]));            \
    }                                                                                             \
    static void gated_##T(T *gate, const T *up, long count)                                       \
    {                                                                                             \
        long i = 0;                                                                               \
        for (; i + LANES <= count; i += LANES) {                                                  \
            vec x = wide_##T(gate + i), turned = rounded_##T(x * sigmoid(x));                     \
            write_##T(gate + i, rounded_##T(turned * wide_##T(up + i)));                          \
        }                                                                                         \
        for (; i < count; i++) {                                                                  \
            float x = number_##T(gate[i]), turned = number_##T(narrow_##T(x / (1 + expf(-x))));   \
            gate[i] = narrow_##T(turned * number_##T(up[i]));                                     \
        }                                                                                         \
    }

BETWEEN(f32)
BETWEEN(bf16)

/* A layer's weights, out of (out, in) each; a bias or none behind each product. */
typedef struct {
    const void *first_norm, *second_norm;
    const void *q, *k, *v, *o, *gate, *up, *down;
    const void *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
    double first_eps, second_eps, scale;
    long hidden, inner, groups, heads, size; /* heads: of a group; size: of a head */
} layer;

/* First part of a layer for one token a row: x (rows, hidden) -> q (rows, groups, heads, size), k and
   v (rows, groups, size), queries and keys turned by cos and sin (rows, size). room: like x. */
#define PROJECT(NAME, NORM, LINEAR, T)                                                            \
    void NAME(const layer *l, const T *x, const T *cos, const T *sin, T *q, T *k, T *v, T *room,  \
              long rows)                                                                          \
    {                                                                                             \
        long wide = l->groups * l->size;                                                          \
        NORM(x, l->first_norm, room, l->first_eps, rows, l->hidden);                              \
        LINEAR(room, l->q, l->q_bias, q, rows, l->hidden, wide * l->heads);                       \
        LINEAR(room, l->k, l->k_bias, k, rows, l->hidden, wide);                                  \
        LINEAR(room, l->v, l->v_bias, v, rows, l->hidden, wide);                                  \
        rotate_##T(q, cos, sin, rows, l->groups * l->heads, l->size);                             \
        rotate_##T(k, cos, sin, rows, l->groups, l->size);                                        \
    }

PROJECT(attune_project, attune_rms_norm, attune_linear, f32)
PROJECT(attune_project_bf16, attune_rms_norm_bf16, attune_linear_bf16, bf16)

/* Second part: what q sees of k and v (as `attend`), and what a gated product makes of that, each
   added to x -> y (rows, hidden). room: rows of groups * heads * size + hidden + 2 inner numbers. */
#define FINISH(NAME, NORM, LINEAR, T)                                                             \
    void NAME(const layer *l, const T *x, const T *q, const T *k, const T *v,                     \
              const unsigned char *seen, T *y, T *room, float *scores, long rows, long tokens,    \
              long per_row, long per_group)                                                       \
    {                                                                                             \
        long wide = l->groups * l->heads * l->size;                                               \
        T *seen_of = room, *some = seen_of + rows * wide, *gate = some + rows * l->hidden;        \
        T *up = gate + rows * l->inner;                                                           \
        attend_##T(q, k, v, seen, seen_of, scores, (float)l->scale, rows, l->groups, l->heads,    \
                   l->size, tokens, per_row, per_group);                                          \
        LINEAR(seen_of, l->o, l->o_bias, y, rows, wide, l->hidden);                               \
        plus_##T(y, x, rows * l->hidden);                                                         \
        NORM(y, l->second_norm, some, l->second_eps, rows, l->hidden);                            \
        LINEAR(some, l->gate, l->gate_bias, gate, rows, l->hidden, l->inner);                     \
        LINEAR(some, l->up, l->up_bias, up, rows, l->hidden, l->inner);                           \
        for (long r = 0; r < rows; r++)                                                           \
            gated_##T(gate + r * l->inner, up + r * l->inner, l->inner);                          \
        LINEAR(gate, l->down, l->down_bias, some, rows, l->inner, l->hidden);                     \
        plus_##T(y, some, rows * l->hidden);                                                      \
    }

FINISH(attune_finish, attune_rms_norm, attune_linear, f32)
FINISH(attune_finish_bf16, attune_rms_norm_bf16, attune_linear_bf16, bf16)
