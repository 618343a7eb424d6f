// Integer lanes: narrowed to bytes in order, bits of lanes, and lookups.
#pragma once

#include "simd/widths.hpp"

#if !defined(GRADKERN_SIMD_AVX512) && !defined(GRADKERN_SIMD_AVX2) && defined(__SSE2__)
#define GRADKERN_SIMD_SSE2
#include <emmintrin.h>
#endif

namespace gradkern::simd {
namespace {

using bytes = vec<std::uint8_t, vector_bytes>;
using words = vec<std::int32_t, vector_bytes / 4>;
using longs = vec<std::int64_t, vector_bytes / 8>;
using halves = vec<std::uint16_t, vector_bytes / 2>;

// Bit i is set where bit `position` of byte i is.
GRADKERN_HD std::uint64_t bits_of(bytes v, int position) {
  // Shifted as 16-bit lanes: what crosses a byte's border does not reach its top bit.
  typedef std::uint16_t pairs __attribute__((vector_size(vector_bytes)));
  const bytes top = bytes::wrap((pairs)v.v << (7 - position));
#if defined(GRADKERN_SIMD_AVX512)
  return _mm512_movepi8_mask((__m512i)top.v);
#elif defined(GRADKERN_SIMD_AVX2)
  return static_cast<std::uint32_t>(_mm256_movemask_epi8((__m256i)top.v));
#elif defined(GRADKERN_SIMD_SSE2)
  return static_cast<std::uint32_t>(_mm_movemask_epi8((__m128i)top.v));
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < vector_bytes; ++i) bits |= std::uint64_t(top.v[i] >> 7) << i;
  return bits;
#endif
}

// The low bit of a + b + c, of every bit, and the high one.
GRADKERN_HD bytes sum_bit(bytes a, bytes b, bytes c) {
#if defined(GRADKERN_SIMD_AVX512)
  return bytes::wrap(_mm512_ternarylogic_epi64((__m512i)a.v, (__m512i)b.v, (__m512i)c.v, 0x96));
#else
  return a ^ b ^ c;
#endif
}
GRADKERN_HD bytes carry_bit(bytes a, bytes b, bytes c) {
#if defined(GRADKERN_SIMD_AVX512)
  return bytes::wrap(_mm512_ternarylogic_epi64((__m512i)a.v, (__m512i)b.v, (__m512i)c.v, 0xE8));
#else
  return (a & b) | ((a ^ b) & c);
#endif
}

// table[index], or 0 from index 16 up; below_16: there are none such.
template <bool below_16 = false>
GRADKERN_HD bytes lookup(const std::uint8_t (&table)[16], bytes index) {
#if defined(GRADKERN_SIMD_AVX512)
  const __m512i entries = _mm512_maskz_broadcast_i32x4(0xFFFF, _mm_loadu_si128((const __m128i*)table));
  if constexpr (below_16) return bytes::wrap(_mm512_shuffle_epi8(entries, (__m512i)index.v));
  return bytes::wrap(_mm512_shuffle_epi8(entries, _mm512_adds_epu8((__m512i)index.v, _mm512_set1_epi8(0x70))));
#elif defined(GRADKERN_SIMD_AVX2)
  const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  if constexpr (below_16) return bytes::wrap(_mm256_shuffle_epi8(entries, (__m256i)index.v));
  return bytes::wrap(_mm256_shuffle_epi8(entries, _mm256_adds_epu8((__m256i)index.v, _mm256_set1_epi8(0x70))));
#elif defined(GRADKERN_SIMD_NEON)
  return bytes::wrap(vqtbl1q_u8(vld1q_u8(table), (uint8x16_t)index.v));
#else
  bytes r(0);
  for (int k = 0; k < 16; ++k)
    if (table[k] != 0) r.v |= (bytes::native)(index.v == bytes(static_cast<std::uint8_t>(k)).v) & bytes(table[k]).v;
  return r;
#endif
}

// Which bytes of v are not zero while those of w are above a limit.
struct SetAndAbove {
#if defined(GRADKERN_SIMD_AVX512)
  std::uint64_t found;
  GRADKERN_HD SetAndAbove(bytes v, bytes w, bytes limit)
      : found(_mm512_mask_cmpgt_epu8_mask(_mm512_test_epi8_mask((__m512i)v.v, (__m512i)v.v), (__m512i)w.v,
                                          (__m512i)limit.v)) {}
  GRADKERN_HD void operator|=(SetAndAbove other) { found |= other.found; }
  GRADKERN_HD std::uint64_t bits() const { return found; }
#else
  bytes found;  // not zero
  GRADKERN_HD SetAndAbove(bytes v, bytes w, bytes limit) : found(min(v, max(w, limit) - limit)) {}
  GRADKERN_HD void operator|=(SetAndAbove other) { found = found | other.found; }
  GRADKERN_HD std::uint64_t bits() const { return bits_of(bytes::wrap(found.v != bytes(0).v), 7); }
#endif
};

// Bit i is set where the sign of lane i is.
template <class T, int N>
GRADKERN_HD unsigned lanes_of(vec<T, N> v) {
#if defined(GRADKERN_SIMD_AVX512)
  if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)v.v);
  if constexpr (sizeof(T) == 8) return _mm512_movepi64_mask((__m512i)v.v);
#elif defined(GRADKERN_SIMD_AVX2)
  if constexpr (sizeof(T) == 4) return static_cast<unsigned>(_mm256_movemask_ps((__m256)v.v));
  if constexpr (sizeof(T) == 8) return static_cast<unsigned>(_mm256_movemask_pd((__m256d)v.v));
#elif defined(GRADKERN_SIMD_SSE2)
  if constexpr (sizeof(T) == 4) return static_cast<unsigned>(_mm_movemask_ps((__m128)v.v));
  if constexpr (sizeof(T) == 8) return static_cast<unsigned>(_mm_movemask_pd((__m128d)v.v));
#else
  unsigned bits = 0;
  for (int i = 0; i < N; ++i) bits |= unsigned(static_cast<std::uint64_t>(v.v[i]) >> (8 * sizeof(T) - 1) & 1) << i;
  return bits;
#endif
}

// Bits of a where a mask is set, else of b.
template <class T, int N>
GRADKERN_HD vec<T, N> select_bits(vec<T, N> mask, vec<T, N> a, vec<T, N> b) {
#if defined(GRADKERN_SIMD_AVX512)
  return vec<T, N>::wrap(_mm512_ternarylogic_epi64((__m512i)a.v, (__m512i)b.v, (__m512i)mask.v, 0xE4));
#else
  return (a & mask) | (b & ~mask);
#endif
}

// The low halves of a and b, in order.
GRADKERN_HD words narrow(longs a, longs b) {
#if defined(GRADKERN_SIMD_AVX512)
  return words::wrap(_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32((__m512i)a.v)),
                                        _mm512_cvtepi64_epi32((__m512i)b.v), 1));
#elif defined(GRADKERN_SIMD_AVX2)
  const __m256 even = _mm256_shuffle_ps((__m256)a.v, (__m256)b.v, 0x88);
  return words::wrap(_mm256_permute4x64_epi64(_mm256_castps_si256(even), 0xD8));
#else
  words r;
  for (int i = 0; i < vector_bytes / 8; ++i) {
    r.v[i] = static_cast<std::int32_t>(a.v[i]);
    r.v[i + vector_bytes / 8] = static_cast<std::int32_t>(b.v[i]);
  }
  return r;
#endif
}

// Four vectors of values in 0 .. 255 as bytes, in order.
GRADKERN_HD bytes narrow(words a, words b, words c, words d) {
#if defined(GRADKERN_SIMD_AVX512)
  const __m512i mixed = _mm512_packus_epi16(_mm512_packus_epi32((__m512i)a.v, (__m512i)b.v),
                                            _mm512_packus_epi32((__m512i)c.v, (__m512i)d.v));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return bytes::wrap(_mm512_maskz_permutexvar_epi32(0xFFFF, order, mixed));
#elif defined(GRADKERN_SIMD_AVX2)
  const __m256i mixed = _mm256_packus_epi16(_mm256_packus_epi32((__m256i)a.v, (__m256i)b.v),
                                            _mm256_packus_epi32((__m256i)c.v, (__m256i)d.v));
  return bytes::wrap(_mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#elif defined(GRADKERN_SIMD_SSE2)
  return bytes::wrap(
      _mm_packus_epi16(_mm_packs_epi32((__m128i)a.v, (__m128i)b.v), _mm_packs_epi32((__m128i)c.v, (__m128i)d.v)));
#else
  bytes r;
  constexpr int n = vector_bytes / 4;
  for (int i = 0; i < n; ++i) {
    r.v[i] = static_cast<std::uint8_t>(a.v[i]);
    r.v[i + n] = static_cast<std::uint8_t>(b.v[i]);
    r.v[i + 2 * n] = static_cast<std::uint8_t>(c.v[i]);
    r.v[i + 3 * n] = static_cast<std::uint8_t>(d.v[i]);
  }
  return r;
#endif
}

}  // namespace
}  // namespace gradkern::simd
