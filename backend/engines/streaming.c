/* The products and norms of decoding a few rows: one thread, fp32.

   attune_linear: y = x W'. What counts is how fast W is read. One or two rows take it as a single stream, as the
   hardware prefetches best; three or four take three outputs at a time and ask for the next three
   while they compute. */

#include <math.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define LINE 16 /* floats */
#define UNROLL _Pragma("GCC unroll 8")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline float total(vec v)
{
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* x (ROWS, in), W (OUTS, in) -> y (ROWS, OUTS) in rows of `out`. */
#define BLOCK(NAME, ROWS, OUTS)                                                                   \
    static void NAME(const float *restrict x, const float *restrict w, float *restrict y,         \
                     long in, long out)                                                           \
    {                                                                                             \
        vec sums[ROWS][OUTS] = {0};                                                               \
        const float *next = w + OUTS * in;                                                        \
        long k = 0;                                                                               \
        for (; k + 4 * LANES <= in; k += 4 * LANES) {                                             \
            if (OUTS > 1) {                                                                       \
                UNROLL for (int i = 0; i < OUTS * 4 * LANES / LINE; i++)                          \
                    __builtin_prefetch(next + i * LINE);                                          \
                next += OUTS * 4 * LANES;                                                         \
            }                                                                                     \
            UNROLL for (int j = 0; j < 4; j++)                                                    \
                UNROLL for (int o = 0; o < OUTS; o++) {                                           \
                    vec weight = *(const vec *)(w + o * in + k + j * LANES);                      \
                    UNROLL for (int r = 0; r < ROWS; r++)                                         \
                        sums[r][o] += weight * *(const vec *)(x + r * in + k + j * LANES);        \
                }                                                                                 \
        }                                                                                         \
        UNROLL for (int r = 0; r < ROWS; r++)                                                     \
            UNROLL for (int o = 0; o < OUTS; o++) {                                               \
                float sum = total(sums[r][o]);                                                    \
                for (long i = k; i < in; i++) sum += x[r * in + i] * w[o * in + i];               \
                y[r * out + o] = sum;                                                             \
            }                                                                                     \
    }

BLOCK(one_by_one, 1, 1)
BLOCK(two_by_one, 2, 1)
BLOCK(three_by_one, 3, 1)
BLOCK(four_by_one, 4, 1)
BLOCK(three_by_three, 3, 3)
BLOCK(four_by_three, 4, 3)

void attune_linear(const float *x, const float *w, float *y, long rows, long in, long out)
{
    for (long o = 0; o < out;) {
        long outs = rows > 2 && o + 3 <= out ? 3 : 1;
        for (long r = 0; r < rows;) {
            const float *xr = x + r * in, *wo = w + o * in;
            float *yr = y + r * out + o;
            long left = rows - r;
            if (left == 1) {
                for (long i = 0; i < outs; i++) one_by_one(xr, wo + i * in, yr + i, in, out);
                r += 1;
            } else if (left == 2 || left == 5) {
                for (long i = 0; i < outs; i++) two_by_one(xr, wo + i * in, yr + i, in, out);
                r += 2;
            } else if (left == 3 || left == 6) {
                (outs == 3 ? three_by_three : three_by_one)(xr, wo, yr, in, out);
                r += 3;
            } else {
                (outs == 3 ? four_by_three : four_by_one)(xr, wo, yr, in, out);
                r += 4;
            }
        }
        o += outs;
    }
}

#define WIDE 16
#define VECS (WIDE / LANES)

/* The inputs of up to 16 rows side by side (in, WIDE), so that a vector holds one input of many rows:
   no sums across a vector, and six outputs share every load. W (OUTS, in) -> y in rows of `out`. */
#define WIDE_BLOCK(NAME, OUTS)                                                                    \
    static void NAME(const float *restrict x, const float *restrict w, float *restrict y,         \
                     long rows, long in, long out)                                                \
    {                                                                                             \
        vec sums[OUTS][VECS] = {0};                                                               \
        const float *next = w + OUTS * in;                                                        \
        for (long k = 0; k < in; k++) {                                                           \
            if (k % 4 == 0 && OUTS > 1) {                                                         \
                __builtin_prefetch(next);                                                         \
                __builtin_prefetch(next + LINE);                                                  \
                next += OUTS * 4;                                                                 \
            }                                                                                     \
            const vec *here = (const vec *)(x + k * WIDE);                                        \
            UNROLL for (int o = 0; o < OUTS; o++)                                                 \
                UNROLL for (int v = 0; v < VECS; v++) sums[o][v] += here[v] * w[o * in + k];      \
        }                                                                                         \
        for (int o = 0; o < OUTS; o++)                                                            \
            for (long r = 0; r < rows; r++) y[r * out + o] = sums[o][r / LANES][r % LANES];       \
    }

WIDE_BLOCK(wide_by_one, 1)
WIDE_BLOCK(wide_by_six, 6)

void attune_linear_wide(const float *x, const float *w, float *y, long rows, long in, long out)
{
    long o = 0;
    for (; o + 6 <= out; o += 6) wide_by_six(x, w + o * in, y + o, rows, in, out);
    for (; o < out; o++) wide_by_one(x, w + o * in, y + o, rows, in, out);
}

/* y = x / sqrt(mean(x^2) + eps) * w, row by row: in torch half a dozen calls. */
void attune_rms_norm(const float *x, const float *w, float *y, double eps, long rows, long size)
{
    for (long r = 0; r < rows; r++, x += size, y += size) {
        vec squares = {0};
        long i = 0;
        for (; i + LANES <= size; i += LANES) {
            vec here = *(const vec *)(x + i);
            squares += here * here;
        }
        float sum = total(squares);
        for (; i < size; i++) sum += x[i] * x[i];
        float scale = 1 / sqrtf(sum / size + (float)eps);
        for (i = 0; i + LANES <= size; i += LANES)
            *(vec *)(y + i) = *(const vec *)(w + i) * (*(const vec *)(x + i) * scale);
        for (; i < size; i++) y[i] = w[i] * (x[i] * scale);
    }
}
