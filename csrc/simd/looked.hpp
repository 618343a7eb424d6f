// Entries of a vector that are looked at: extrema of magnitudes, signs and exponents, and where something is zero.
#pragma once

#include <limits>

#include "simd/lanes.hpp"

namespace gradkern::simd {
namespace {

// The greater of |v| and a magnitude. A NaN is passed over, or taken.
template <class T, int N>
GRADKERN_HD vec<T, N> max_magnitude(vec<T, N> v, vec<T, N> most) {
#if defined(GRADKERN_SIMD_AVX512)
  if constexpr (N == 16)
    return vec<T, N>::wrap(_mm512_maskz_range_ps(0xFFFF, (__m512)most.v, (__m512)v.v, 0b1011));
  else
    return vec<T, N>::wrap(_mm512_maskz_range_pd(0xFF, (__m512d)most.v, (__m512d)v.v, 0b1011));
#else
  return max(ops::abs(v), most);
#endif
}

// Of two vectors of 16-bit entries a byte an entry, in an order of their own: the exponent, and above it the sign if
// there is room for it.
template <int fraction_bits>
struct ExponentBytes {
  static constexpr int exponent_bits = 15 - fraction_bits;
  bytes joined;
  GRADKERN_HD ExponentBytes(halves a, halves b) {
    constexpr int up = exponent_bits - 7;  // of the second vector
    const halves second = up > 0 ? b << (up > 0 ? up : 0) : b >> (up > 0 ? 0 : -up);
    joined = bytes::wrap(select_bits(halves(0xFF), a >> fraction_bits, second).v);
  }
  GRADKERN_HD bytes exponent() const {
    if constexpr (exponent_bits == 8) return joined;
    return joined & bytes((1 << exponent_bits) - 1);
  }
};

// Of four vectors of float32 a byte an entry, in an order of their own: the exponent, and the sign as its top bit.
struct SignsAndExponents {
  using unsigned_words = vec<std::uint32_t, vector_bytes / 4>;
  bytes sign, exponent;
  GRADKERN_HD SignsAndExponents(unsigned_words a, unsigned_words b, unsigned_words c, unsigned_words d) {
    const halves ab = high_halves(a, b), cd = high_halves(c, d);
    sign = bytes::wrap(select_bits(halves(0xFF), ab >> 8, cd).v);
    exponent = ExponentBytes<7>(ab, cd).exponent();
  }

 private:
  static GRADKERN_HD halves high_halves(unsigned_words a, unsigned_words b) {
    return halves::wrap(select_bits(unsigned_words(0xFFFF), a >> 16, b).v);
  }
};

// A bit for each lane of a vector.
template <int N>
using lane_bits = std::conditional_t<N == 16, std::uint16_t, std::uint8_t>;

#if defined(GRADKERN_SIMD_AVX512)
// Those of a vector that have a bit set, one after the other; how many. A whole vector is written.
template <class T, class Bits>
GRADKERN_HD int store_selected(const T* from, Bits selected, T* to) {
  if constexpr (sizeof(T) == 4)
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(selected, _mm512_loadu_ps(from)));
  else
    _mm512_storeu_pd(to, _mm512_maskz_compress_pd(selected, _mm512_loadu_pd(from)));
  return __builtin_popcount(selected);
}
#endif

// Entries of a vector that are looked at: all of them, or those that are not zero.
template <class T, int N, bool all>
struct Looked {
  using V = vec<T, N>;
  using UV = vec<std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>, N>;
  V v;
#if defined(GRADKERN_SIMD_AVX512)
  using Mask = std::conditional_t<N == 16, __mmask16, __mmask8>;
  Mask looked = Mask(~0);
  GRADKERN_HD explicit Looked(V x) : v(x) {
    if constexpr (all) return;
    const __m512i bits = (__m512i)x.v;
    if constexpr (N == 16)
      looked = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(INT32_MAX));
    else
      looked = _mm512_test_epi64_mask(bits, _mm512_set1_epi64(INT64_MAX));
  }
  // The smaller of |v| and a magnitude. A NaN is passed over, or taken.
  GRADKERN_HD V min_magnitude(V least) const {
    if constexpr (N == 16)
      return V::wrap(_mm512_mask_range_ps((__m512)least.v, looked, (__m512)least.v, (__m512)v.v, 0b1010));
    else
      return V::wrap(_mm512_mask_range_pd((__m512d)least.v, looked, (__m512d)least.v, (__m512d)v.v, 0b1010));
  }
  // The bits, with a sign on none but what is looked at.
  GRADKERN_HD UV bits() const {
    if constexpr (all) return UV::wrap(v.v);
    if constexpr (N == 16)
      return UV::wrap(_mm512_maskz_mov_epi32(looked, (__m512i)v.v));
    else
      return UV::wrap(_mm512_maskz_mov_epi64(looked, (__m512i)v.v));
  }
  GRADKERN_HD int zeros() const { return all ? 0 : N - __builtin_popcount(looked); }
  // Stores where (v + carry) & mask is zero. Straight from the mask register: compilers would join masks in general ones.
  GRADKERN_HD void store_where_zero(UV carry, UV mask, lane_bits<N>* where) const {
    const __m512i sum = (__m512i)(UV::wrap(v.v) + carry).v;
    if constexpr (N == 16)
      asm("kmovw %1, %0" : "=m"(*where) : "k"(_mm512_mask_testn_epi32_mask(looked, sum, (__m512i)mask.v)));
    else
      asm("kmovb %1, %0" : "=m"(*where) : "k"(_mm512_mask_testn_epi64_mask(looked, sum, (__m512i)mask.v)));
  }
#else
  UV zero{0};
  GRADKERN_HD explicit Looked(V x) : v(x) {
    if constexpr (!all) zero = UV::wrap(x.v == V(T(0)).v);
  }
  GRADKERN_HD V min_magnitude(V least) const {
    const V magnitude = ops::abs(v);
    if constexpr (all) return min(magnitude, least);
    return min(V::wrap(zero.v ? V(std::numeric_limits<T>::infinity()).v : magnitude.v), least);
  }
  GRADKERN_HD UV bits() const { return all ? UV::wrap(v.v) : UV::wrap(v.v) & ~zero; }
  GRADKERN_HD int zeros() const { return all ? 0 : __builtin_popcount(lanes_of(zero)); }
  GRADKERN_HD void store_where_zero(UV carry, UV mask, lane_bits<N>* where) const {
    UV sum = (UV::wrap(v.v) + carry) & mask;
    if constexpr (!all) sum = sum | zero;
    *where = static_cast<lane_bits<N> >(lanes_of(UV::wrap(sum.v == UV(0).v)));
  }
#endif
};

// Vectors of 16-bit entries, sign first: looked at where an instruction set has the lanes.
#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
inline constexpr bool looks_at_halves = true;

GRADKERN_HD int count_signs(halves v) {
#if defined(GRADKERN_SIMD_AVX512)
  return __builtin_popcount(_mm512_movepi16_mask((__m512i)v.v));
#else
  return __builtin_popcount(unsigned(_mm256_movemask_epi8((__m256i)v.v)) & 0xAAAAAAAA);
#endif
}

// How many bytes of v have something under a mask.
GRADKERN_HD int count_set(bytes v, bytes mask) {
#if defined(GRADKERN_SIMD_AVX512)
  return __builtin_popcountll(_mm512_test_epi8_mask((__m512i)v.v, (__m512i)mask.v));
#else
  return __builtin_popcountll(bits_of(bytes::wrap((v & mask).v != bytes(0).v), 7));
#endif
}

// Bit i is set where lane i has something under a mask.
GRADKERN_HD std::uint64_t where_set(halves v, halves mask) {
#if defined(GRADKERN_SIMD_AVX512)
  return _mm512_test_epi16_mask((__m512i)v.v, (__m512i)mask.v);
#else
  const __m256i set = (__m256i)((v & mask).v != halves(0).v);
  const __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(set), _mm256_extracti128_si256(set, 1));
  return static_cast<unsigned>(_mm_movemask_epi8(packed));
#endif
}

// a - b, or 0 where b is more.
GRADKERN_HD halves minus_or_zero(halves a, halves b) {
#if defined(GRADKERN_SIMD_AVX512)
  return halves::wrap(_mm512_subs_epu16((__m512i)a.v, (__m512i)b.v));
#else
  return halves::wrap(_mm256_subs_epu16((__m256i)a.v, (__m256i)b.v));
#endif
}

#else
inline constexpr bool looks_at_halves = false;
#endif

}  // namespace
}  // namespace gradkern::simd
