/* Work on each row of a tensor by itself: norms, gates, rotation, log-probs. Numbers of type T. */

#ifndef ROWS_H
#define ROWS_H
typedef struct {
    const void *x, *w, *d;
    void *y, *z;
    float *scales;
    const float *cos, *sin;
    const long *labels;
    long rows, size, heads, by_place, by_head, first;
    double eps;
    int back;
} rows_work;

#define EACH_ROW(slot, slots, all)                                                                \
    for (long r = (all) * (slot) / (slots), end = (all) * ((slot) + 1) / (slots); r < end; r++)
#define FIRST(size) ((size) / LANES * LANES) /* of so many, what goes into whole vectors */

INLINE vec sigmoid(vec x) /* of what is far from 0 as of what is 80 from it */
{
    return 1 / (1 + exponential(-larger(-larger(-x, all_of(-80)), all_of(-80))));
}
#endif

/* y = x / rms(x) * w: x fp32, w and y of type T. 1 / rms(x) is kept. */
static void OF(norm)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long size = a->size, most = FIRST(size);
    const T *w = a->w;
    EACH_ROW(slot, slots, a->rows)
    {
        const float *x = (const float *)a->x + r * size;
        T *y = (T *)a->y + r * size;
        vec squares = all_of(0);
        for (long i = 0; i < most; i += LANES) squares += wide_f32(x + i) * wide_f32(x + i);
        float sum = total(squares);
        for (long i = most; i < size; i++) sum += x[i] * x[i];
        float scale = a->scales[r] = 1 / sqrtf(sum / size + (float)a->eps);
        for (long i = 0; i < most; i += LANES)
            OF(write)(y + i, wide_f32(x + i) * scale * OF(wide)(w + i));
        for (long i = most; i < size; i++) y[i] = OF(narrow)(x[i] * scale * OF(number)(w[i]));
    }
}

/* z = the gradient of x, fp32, by d, that of y. */
static void OF(norm_back)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long size = a->size, most = FIRST(size);
    const T *w = a->w;
    EACH_ROW(slot, slots, a->rows)
    {
        const float *x = (const float *)a->x + r * size;
        const T *d = (const T *)a->d + r * size;
        float *z = (float *)a->z + r * size;
        vec along = all_of(0);
        for (long i = 0; i < most; i += LANES)
            along += wide_f32(x + i) * OF(wide)(d + i) * OF(wide)(w + i);
        float sum = total(along), scale = a->scales[r];
        for (long i = most; i < size; i++) sum += x[i] * OF(number)(d[i]) * OF(number)(w[i]);
        float back = sum * scale * scale / size;
        for (long i = 0; i < most; i += LANES)
            write_f32(z + i, (OF(wide)(d + i) * OF(wide)(w + i) - wide_f32(x + i) * back) * scale);
        for (long i = most; i < size; i++)
            z[i] = (OF(number)(d[i]) * OF(number)(w[i]) - x[i] * back) * scale;
    }
}

/* y = silu(x) * w. */
static void OF(gate)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long size = a->size, most = FIRST(size);
    EACH_ROW(slot, slots, a->rows)
    {
        const T *x = (const T *)a->x + r * size, *w = (const T *)a->w + r * size;
        T *y = (T *)a->y + r * size;
        for (long i = 0; i < most; i += LANES) {
            vec v = OF(wide)(x + i);
            OF(write)(y + i, v * sigmoid(v) * OF(wide)(w + i));
        }
        for (long i = most; i < size; i++) {
            float v = OF(number)(x[i]);
            y[i] = OF(narrow)(v / (1 + expf(-v)) * OF(number)(w[i]));
        }
    }
}

/* y and z = the gradients of x and w by d. */
static void OF(gate_back)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long size = a->size, most = FIRST(size);
    EACH_ROW(slot, slots, a->rows)
    {
        const T *x = (const T *)a->x + r * size, *w = (const T *)a->w + r * size;
        const T *d = (const T *)a->d + r * size;
        T *y = (T *)a->y + r * size, *z = (T *)a->z + r * size;
        for (long i = 0; i < most; i += LANES) {
            vec v = OF(wide)(x + i), by = OF(wide)(d + i);
            vec open = sigmoid(v);
            OF(write)(y + i, by * OF(wide)(w + i) * open * (1 + v * (1 - open)));
            OF(write)(z + i, by * v * open);
        }
        for (long i = most; i < size; i++) {
            float v = OF(number)(x[i]), by = OF(number)(d[i]), open = 1 / (1 + expf(-v));
            y[i] = OF(narrow)(by * OF(number)(w[i]) * open * (1 + v * (1 - open)));
            z[i] = OF(narrow)(by * v * open);
        }
    }
}

/* Heads (places, heads, size) turned by cos and sin (places, size), their two halves against each
   other; or the other way round, gradients. y without gaps. */
static void OF(turn)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long half = a->size / 2;
    EACH_ROW(slot, slots, a->rows)
    {
        const float *cos = a->cos + r * a->size, *sin = a->sin + r * a->size;
        /* what the one half takes from the other */
        float first = a->back ? 1 : -1;
        const float *one = a->back ? sin + half : sin, *other = a->back ? sin : sin + half;
        for (long head = 0; head < a->heads; head++) {
            const T *x = (const T *)a->x + r * a->by_place + head * a->by_head;
            T *y = (T *)a->y + (r * a->heads + head) * a->size;
            long i = 0;
            for (; i + LANES <= half; i += LANES) {
                vec low = OF(wide)(x + i), high = OF(wide)(x + half + i);
                vec of_low = high * wide_f32(one + i) * first, of_high = low * wide_f32(other + i);
                OF(write)(y + i, low * wide_f32(cos + i) + of_low);
                OF(write)(y + half + i, high * wide_f32(cos + half + i) - of_high * first);
            }
            for (; i < half; i++) {
                float low = OF(number)(x[i]), high = OF(number)(x[half + i]);
                y[i] = OF(narrow)(low * cos[i] + first * high * one[i]);
                y[half + i] = OF(narrow)(high * cos[half + i] - first * low * other[i]);
            }
        }
    }
}

/* Logits y (rows, size) of the words from `first` on: x, the largest of each row so far, z, the sums
   of exponentials over that of the largest, and w, the labels' logits, take them in. What was
   computed before falls by `scales`. If wanted, y becomes the exponentials. */
static void OF(logps)(const void *work, long slot, long slots)
{
    const rows_work *a = work;
    long size = a->size, most = FIRST(size);
    EACH_ROW(slot, slots, a->rows)
    {
        T *y = (T *)a->y + r * size;
        float *tops = (float *)a->x, *sums = a->z, top = OF(number)(y[0]), sum = 0;
        long label = a->labels[r] - a->first;
        if (label >= 0 && label < size) ((float *)a->w)[r] = OF(number)(y[label]);
        vec high = all_of(top), some = all_of(0);
        for (long i = 0; i < most; i += LANES) high = larger(OF(wide)(y + i), high);
        top = largest(high);
        for (long i = most; i < size; i++) top = fmaxf(top, OF(number)(y[i]));
        top = fmaxf(top, tops[r]);
        for (long i = 0; i < most; i += LANES) {
            vec share = exponential(OF(wide)(y + i) - top);
            some += share;
            if (a->back) OF(write)(y + i, share);
        }
        for (long i = most; i < size; i++) {
            float share = expf(OF(number)(y[i]) - top);
            sum += share;
            if (a->back) y[i] = OF(narrow)(share);
        }
        a->scales[r] = expf(tops[r] - top);
        sums[r] = sums[r] * a->scales[r] + sum + total(some);
        tops[r] = top;
    }
}

#define CALLED(name)                                                                              \
    void OF(attune_##name)(fork_call fork, long slots, const rows_work *a)                        \
    {                                                                                             \
        spread(fork, slots, OF(name), a);                                                         \
    }
CALLED(norm)
CALLED(norm_back)
CALLED(gate)
CALLED(gate_back)
CALLED(turn)
CALLED(logps)
#undef CALLED
