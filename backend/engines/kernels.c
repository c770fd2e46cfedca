/* Products, norms and attention of decoding a few rows: one thread, fp32 or bf16, sums in fp32.

   attune_linear: y = x W' + b. What counts is how fast W is read. One or two rows take it as a
   single stream, as the hardware prefetches best; three or four take three outputs at a time and ask
   for the next three while they compute. */

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
#define HIDDEN -1e30f /* a score that gets no share */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef float f32;
typedef unsigned short bf16; /* the upper half of an fp32 number */
typedef unsigned bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
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

/* sum + x w, where a lane of x holds SIDE_T numbers of one row, and w as many for all rows. */
#define SIDE_f32 1
static inline vec add_side_f32(vec sum, const f32 *x, const f32 *w)
{
    return sum + wide_f32(x) * *w;
}
#define SIDE_bf16 2
static inline vec add_side_bf16(vec sum, const bf16 *x, const bf16 *w)
{
    unsigned two;
    __builtin_memcpy(&two, w, sizeof two);
#if defined(__AVX512BF16__)
    return add_bf16(sum, load_bf16(x), (__m512bh)_mm512_set1_epi32((int)two));
#else
    bits here = *(const bits *)x;
    sum += (vec)(here << 16) * number_bf16(w[0]);
    return sum + (vec)(here & 0xffff0000u) * number_bf16(w[1]);
#endif
}

static inline float total(vec v)
{
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

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
        UNROLL for (int r = 0; r < ROWS; r++)                                                     \
            UNROLL for (int o = 0; o < OUTS; o++) {                                               \
                float sum = total(sums[r][o]);                                                    \
                for (long i = k; i < in; i++)                                                     \
                    sum += number_##T(x[r * in + i]) * number_##T(w[o * in + i]);                 \
                y[r * out + o] = sum;                                                             \
            }                                                                                     \
    }

#define FEW(T)                                                                                    \
    BLOCK(one_by_one, 1, 1, T)                                                                    \
    BLOCK(two_by_one, 2, 1, T)                                                                    \
    BLOCK(three_by_one, 3, 1, T)                                                                  \
    BLOCK(four_by_one, 4, 1, T)                                                                   \
    BLOCK(three_by_three, 3, 3, T)                                                                \
    BLOCK(four_by_three, 4, 3, T)                                                                 \
    static void few_##T(const T *x, const T *w, float *y, long rows, long in, long out)           \
    {                                                                                             \
        for (long o = 0; o < out;) {                                                              \
            long outs = rows > 2 && o + 3 <= out ? 3 : 1;                                         \
            for (long r = 0; r < rows;) {                                                         \
                const T *xr = x + r * in, *wo = w + o * in;                                       \
                float *yr = y + r * out + o;                                                      \
                long left = rows - r;                                                             \
                if (left == 1) {                                                                  \
                    for (long i = 0; i < outs; i++)                                               \
                        one_by_one_##T(xr, wo + i * in, yr + i, in, out);                         \
                    r += 1;                                                                       \
                } else if (left == 2 || left == 5) {                                              \
                    for (long i = 0; i < outs; i++)                                               \
                        two_by_one_##T(xr, wo + i * in, yr + i, in, out);                         \
                    r += 2;                                                                       \
                } else if (left == 3 || left == 6) {                                              \
                    (outs == 3 ? three_by_three_##T : three_by_one_##T)(xr, wo, yr, in, out);     \
                    r += 3;                                                                       \
                } else {                                                                          \
                    (outs == 3 ? four_by_three_##T : four_by_one_##T)(xr, wo, yr, in, out);       \
                    r += 4;                                                                       \
                }                                                                                 \
            }                                                                                     \
            o += outs;                                                                            \
        }                                                                                         \
    }

FEW(f32)
FEW(bf16)

#define WIDE 16
#define VECS (WIDE / LANES)
#define OUTS_AT_ONCE (LANES == 16 ? 12 : 6) /* as many sums as there are registers for */

/* The inputs of up to 16 rows side by side (in / SIDE, WIDE, SIDE), so that a vector holds one input
   (bf16: two) of many rows: no sums across a vector, and several outputs share every load. A last
   odd input stands beside a zero. W (OUTS, in) -> y in rows of `out`. */
#define WIDE_BLOCK(NAME, OUTS, T)                                                                 \
    static void NAME##_##T(const T *restrict x, const T *restrict w, float *restrict y,           \
                           long rows, long in, long out)                                          \
    {                                                                                             \
        enum { PER_LINE = LINE / sizeof(T), TURN = 4 * SIDE_##T };                                \
        vec sums[OUTS][VECS] = {0};                                                               \
        const T *next = w + OUTS * in;                                                            \
        long k = 0;                                                                               \
        for (; k + SIDE_##T <= in; k += SIDE_##T) {                                               \
            if (k % TURN == 0 && OUTS > 1) {                                                      \
                __builtin_prefetch(next);                                                         \
                __builtin_prefetch(next + PER_LINE);                                              \
                next += OUTS * TURN;                                                              \
            }                                                                                     \
            UNROLL for (int o = 0; o < OUTS; o++) UNROLL for (int v = 0; v < VECS; v++)           \
                sums[o][v] = add_side_##T(sums[o][v], x + k * WIDE + v * LANES * SIDE_##T,        \
                                          w + o * in + k);                                        \
        }                                                                                         \
        for (int o = 0; o < OUTS; o++)                                                            \
            for (long r = 0; r < rows; r++) {                                                     \
                float sum = sums[o][r / LANES][r % LANES];                                        \
                if (k < in)                                                                       \
                    sum += number_##T(x[k * WIDE + r * SIDE_##T]) * number_##T(w[o * in + k]);    \
                y[r * out + o] = sum;                                                             \
            }                                                                                     \
    }

/* `room` is written to: where x stands side by side. */
#define MANY(T)                                                                                   \
    WIDE_BLOCK(wide_by_one, 1, T)                                                                 \
    WIDE_BLOCK(wide_by_many, OUTS_AT_ONCE, T)                                                     \
    static void many_rows_##T(const T *x, const T *w, float *y, T *room, long rows, long in,      \
                              long out)                                                           \
    {                                                                                             \
        T *place = room;                                                                          \
        for (long k = 0; k < in; k += SIDE_##T)                                                   \
            for (long r = 0; r < WIDE; r++)                                                       \
                for (long i = k; i < k + SIDE_##T; i++)                                           \
                    *place++ = r < rows && i < in ? x[r * in + i] : 0;                            \
        long o = 0;                                                                               \
        for (; o + OUTS_AT_ONCE <= out; o += OUTS_AT_ONCE)                                        \
            wide_by_many_##T(room, w + o * in, y + o, rows, in, out);                             \
        for (; o < out; o++) wide_by_one_##T(room, w + o * in, y + o, rows, in, out);             \
    }

MANY(f32)
MANY(bf16)

#define FEW_ROWS 8 /* up to here rows are summed one by one, beyond side by side */
#define LINEAR(T)                                                                                 \
    static void linear_##T(const T *x, const T *w, float *y, T *room, long rows, long in,         \
                           long out)                                                              \
    {                                                                                             \
        if (rows <= FEW_ROWS)                                                                     \
            few_##T(x, w, y, rows, in, out);                                                      \
        else                                                                                      \
            many_rows_##T(x, w, y, room, rows, in, out);                                          \
    }

LINEAR(f32)
LINEAR(bf16)

/* b (out) or none is added. */
void attune_linear(const f32 *x, const f32 *w, const f32 *b, f32 *y, float *room, long rows,
                   long in, long out)
{
    linear_f32(x, w, y, room, rows, in, out);
    for (long r = 0; b && r < rows; r++, y += out)
        for (long o = 0; o < out; o++) y[o] += b[o];
}

/* In `room` x stands side by side, then come the sums, in fp32 until all are there. */
void attune_linear_bf16(const bf16 *x, const bf16 *w, const bf16 *b, bf16 *y, float *room,
                        long rows, long in, long out)
{
    float *sums = room + WIDE * (in + 1);
    linear_bf16(x, w, sums, (bf16 *)room, rows, in, out);
    for (long r = 0; b && r < rows; r++)
        for (long o = 0; o < out; o++) sums[r * out + o] += number_bf16(b[o]);
    long i = 0;
    for (; i + LANES <= rows * out; i += LANES)
        write_bf16(y + i, rounded_bf16(wide_f32(sums + i)));
    for (; i < rows * out; i++) y[i] = narrow_bf16(sums[i]);
}

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

/* Queries, keys and values of one token a row: x times three weights, the first two turned. */
#define PROJECT(NAME, LINEAR, T)                                                                  \
    void NAME(const T *x, const T *wq, const T *wk, const T *wv, const T *cos, const T *sin,      \
              T *q, T *k, T *v, float *room, long rows, long in, long heads, long groups,         \
              long size)                                                                          \
    {                                                                                             \
        LINEAR(x, wq, 0, q, room, rows, in, heads * size);                                   \
        LINEAR(x, wk, 0, k, room, rows, in, groups * size);                                  \
        LINEAR(x, wv, 0, v, room, rows, in, groups * size);                                  \
        rotate_##T(q, cos, sin, rows, heads, size);                                               \
        rotate_##T(k, cos, sin, rows, groups, size);                                              \
    }

PROJECT(attune_project, attune_linear, f32)
PROJECT(attune_project_bf16, attune_linear_bf16, bf16)

/* e^x for x <= 0, relative error below 1e-6; 0 below -87. */
static inline vec exponential(vec x)
{
    typedef int whole __attribute__((vector_size(4 * LANES)));
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
   (rows, tokens) or none -> y like q. `size` is a multiple of LANES; room: (heads, tokens). */
#define ATTEND(NAME, T)                                                                           \
    void NAME(const T *q, const T *k, const T *v, const unsigned char *seen, T *y, float *room,   \
              double scale, long rows, long groups, long heads, long size, long tokens,           \
              long per_row, long per_group)                                                       \
    {                                                                                             \
        for (long r = 0; r < rows; r++) {                                                         \
            for (long g = 0; g < groups; g++) {                                                   \
                long at = r * per_row + g * per_group;                                            \
                few_##T(q, k + at, room, heads, size, tokens);                                    \
                for (long h = 0; h < heads; h++) {                                                \
                    float *shares = room + h * tokens;                                            \
                    soften(shares, seen, tokens, (float)scale);                                   \
                    for (long d = 0; d < size; d += LANES) {                                      \
                        vec sum = {0};                                                            \
                        const T *value = v + at + d;                                              \
                        for (long t = 0; t < tokens; t++, value += size)                          \
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

ATTEND(attune_attend, f32)
ATTEND(attune_attend_bf16, bf16)
