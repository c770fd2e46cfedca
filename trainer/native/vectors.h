/* Vectors of fp32 for the trainer's kernels, numbers of fp32 or bf16 read as words of 32 bits, and
   work spread over the threads of torch's own OpenMP.

   A word holds numbers that are neighbours along the dimension that is summed over: one of fp32 or
   two of bf16, which the bf16 units multiply and add at once. */

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))
#define HIDDEN -1e30f /* a score that gets no share */

typedef float f32;
typedef unsigned short bf16; /* the upper half of an fp32 number */
typedef unsigned word;

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef word bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef bf16 halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef unsigned char marks __attribute__((vector_size(LANES), aligned(1), may_alias));

INLINE float number_f32(f32 x) { return x; }
INLINE float number_bf16(bf16 x)
{
    union { word bits; float number; } wide = {(word)x << 16};
    return wide.number;
}
INLINE f32 narrow_f32(float x) { return x; }
INLINE bf16 narrow_bf16(float x) /* to the nearest, as every bf16 here */
{
    union { float number; word bits; } wide = {x};
    return (wide.bits + 0x7fffu + (wide.bits >> 16 & 1u)) >> 16;
}

/* LANES numbers in fp32, and written as T when they are rounded. */
INLINE vec wide_f32(const f32 *x) { return *(const vec *)x; }
INLINE vec wide_bf16(const bf16 *x)
{
    return (vec)(__builtin_convertvector(*(const halves *)x, bits) << 16);
}
INLINE void write_f32(f32 *y, vec x) { *(vec *)y = x; }
INLINE void write_bf16(bf16 *y, vec x)
{
#if defined(__AVX512BF16__)
    __m256bh low = _mm512_cvtneps_pbh((__m512)x);
    __builtin_memcpy(y, &low, sizeof low);
#else
    bits all = (bits)x;
    *(halves *)y = __builtin_convertvector((all + 0x7fffu + (all >> 16 & 1u)) >> 16, halves);
#endif
}

/* LANES numbers in the lower ends of words; and two times LANES of them in words, where a word holds
   two, else the first. */
INLINE bits words_f32(const f32 *x) { return *(const bits *)x; }
INLINE bits words_bf16(const bf16 *x) { return __builtin_convertvector(*(const halves *)x, bits); }
INLINE bits joined_f32(const f32 *x, const f32 *y)
{
    (void)y;
    return words_f32(x);
}
INLINE bits joined_bf16(const bf16 *x, const bf16 *y) { return words_bf16(x) | words_bf16(y) << 16; }

/* sum + x w, lane by lane, of words. */
INLINE vec add_f32(vec sum, word x, bits w)
{
    union { word bits; float number; } one = {x};
    return sum + (vec)w * one.number;
}
INLINE vec add_bf16(vec sum, word x, bits w)
{
#if defined(__AVX512BF16__)
    __m512i all = _mm512_set1_epi32((int)x);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)all, (__m512bh)w);
#else
    sum += (vec)(w << 16) * number_bf16(x & 0xffffu);
    return sum + (vec)(w & 0xffff0000u) * number_bf16(x >> 16);
#endif
}

INLINE vec all_of(float x) { return (vec){0} + x; }
INLINE vec chosen(bits which, vec x, vec y) { return (vec)((which & (bits)x) | (~which & (bits)y)); }
INLINE vec larger(vec x, vec y)
{
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)x, (__m512)y);
#else
    return chosen((bits)(x > y), x, y);
#endif
}
INLINE float total(vec v)
{
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}
INLINE float largest(vec v)
{
    float most = v[0];
    UNROLL for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

/* e^x to 2 units in the last place for x up to 87; 0 below -87; undefined stays undefined. */
INLINE vec exponential(vec x)
{
    vec power = x * 1.44269504f + 12582912.0f; /* its lower bits: the nearest whole number */
    ints whole = (ints)power - 0x4b400000;
    vec n = power - 12582912.0f;
    vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
    vec sum = all_of(1.9875691500e-4f);
    sum = sum * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * r * r + r + 1.0f;
    return (vec)((ints)(sum * (vec)((whole + 127) << 23)) & ~(x < -87.0f));
}

/* `fork` calls a function with data on so many threads: GOMP_parallel of the OpenMP that torch has
   loaded, or none for one thread. */
typedef void (*fork_call)(void (*)(void *), void *, unsigned, unsigned);
typedef struct {
    void (*part)(const void *work, long slot, long slots);
    const void *work;
    long slots, next;
} job;

static void take_parts(void *data)
{
    job *all = data;
    long slot;
    while ((slot = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->slots)
        all->part(all->work, slot, all->slots);
}

/* Every slot is one part of the work, the same whoever takes it. */
static void spread(fork_call fork, long slots, void (*part)(const void *, long, long),
                   const void *work)
{
    job all = {part, work, slots, 0};
    if (fork && slots > 1)
        fork(take_parts, &all, (unsigned)slots, 0);
    else
        take_parts(&all);
}
