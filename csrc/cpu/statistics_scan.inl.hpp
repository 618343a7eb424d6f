// The first look at entries of a block: extrema, signs, zeros, the binade of every entry as a byte, and notes of the rare
// entries that lie where a binade is cut finely.
#pragma once

#include <limits>
#include <type_traits>

#include "cpu/histogram.inl.hpp"

namespace gradkern::cpu {
namespace {

using ops::statistics_block;

template <class T>
struct Wide;  // the integer and vector types of a lane, and where its fields lie
template <>
struct Wide<float> {
  using lanes = simd::vec_f32;
  using integers = simd::words;
  using unsigned_scalar = std::uint32_t;
  static constexpr int fraction_bits = 23, bias = 127;
};
template <>
struct Wide<double> {
  using lanes = simd::vec_f64;
  using integers = simd::longs;
  using unsigned_scalar = std::uint64_t;
  static constexpr int fraction_bits = 52, bias = 1023;
};

template <class T>
struct Scan {
  using U = typename Wide<T>::unsigned_scalar;
  U amax = 0, amin = 0;  // magnitudes as bits; amin is that of the smallest non-zero one
  std::int64_t negative = 0, zero = 0;
  int noted = 0;
  std::uint16_t notes[statistics_block];  // entries in another cell than cell 1
};

template <class T>
GRADKERN_HD auto magnitude_bits(T x) {
  using U = typename Wide<T>::unsigned_scalar;
  return base::bit_cast<U>(x) & (~U(0) >> 1);
}

// The fraction of one less than a magnitude: from fine_fraction up for what ops::cell_of does not put into cell 1 (powers
// of two come next to the top of the binade below), and for zero.
template <class U, int fraction_bits>
inline constexpr U fine_fraction = (U(1) << fraction_bits) - 1 - (U(1) << (fraction_bits - 10));

// Of a group with entries in fine cells, or zeros that are not counted yet: notes the former, counts the latter.
// Not inlined: its registers are the scan's.
template <class T, bool zeros_counted>
__attribute__((noinline)) void note_group(Scan<T>& s, const T* x, std::int64_t first) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  using UV = simd::vec<U, simd::vector_bytes / int(sizeof(T))>;
  constexpr int lanes = simd::vector_bytes / int(sizeof(T));
  const UV fine(fine_fraction<U, W::fraction_bits>), fraction((U(1) << W::fraction_bits) - 1), zero(U(0));
  std::uint64_t found = 0;
#pragma GCC unroll 8
  for (int j = 0; j < simd::vector_bytes / lanes; ++j) {
    const UV v = UV::wrap(W::lanes::load(x + first + j * lanes).v), m = v & UV(U(~U(0) >> 1));
    const UV less = (m - UV(U(1))) & fraction;
    const UV is_zero = UV::wrap(m.v == zero.v);
    if constexpr (!zeros_counted) {
      const unsigned zeros = simd::lanes_of(is_zero);
      s.zero += __builtin_popcount(zeros);
      s.negative -= __builtin_popcount(zeros & simd::lanes_of(v));
    }
    found |= std::uint64_t(simd::lanes_of(UV::wrap(less.v >= fine.v) & ~is_zero)) << (j * lanes);
  }
  for (; found; found &= found - 1) s.notes[s.noted++] = static_cast<std::uint16_t>(first + __builtin_ctzll(found));
}

// The look at a block, in steps of simd::vector_bytes entries. The extrema pass over NaNs. Counting zeros in every
// vector costs a tenth more, and pays where there are many.
template <class T, bool many_zeros>
struct Scanner {
  using W = Wide<T>;
  using V = typename W::lanes;
  using U = typename W::unsigned_scalar;
  using I = typename W::integers;
  static constexpr int lanes = simd::vector_bytes / int(sizeof(T)), vectors = int(sizeof(T));
  using UV = simd::vec<U, lanes>;

  // Two of each by turns, as one waits for its last comparison.
  V amax[2] = {T(0), T(0)}, amin[2] = {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity()};
  UV zeros{U(0)};
  std::int64_t negative = 0;  // not in a Scan, which the stored bytes may alias

  // Entries [first, end). codes: for the histogram, of float only.
  __attribute__((noinline)) void look(const T* x, std::int64_t first, std::int64_t end, Scan<T>& s,
                                      std::uint8_t* codes) {
    Scanner held = *this;  // in registers
    for (std::int64_t i = first; i < end; i += simd::vector_bytes)
      held.step(x, i, s, codes ? codes + (i - first) : codes);
    *this = held;
  }

 private:
  GRADKERN_HD void step(const T* x, std::int64_t i, Scan<T>& s, std::uint8_t* codes) {
    const UV positive(U(~U(0) >> 1)), one(U(1)), fraction((U(1) << W::fraction_bits) - 1),
        fine(fine_fraction<U, W::fraction_bits>);
    simd::AnyAtLeast<U, lanes> noted{fine};
    I exponent[vectors];
    simd::SignCount<U, lanes, vectors> signs;
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const UV v = UV::wrap(V::load(x + i + j * lanes).v), m = v & positive;
      UV less = m - one;
      amax[j % 2] = max(V::wrap(m.v), amax[j % 2]);
      amin[j % 2] = min(V::wrap(less.v), amin[j % 2]);  // less than zero is a NaN, and passed over
      if constexpr (many_zeros) {
        const UV is_zero = UV::wrap(m.v == UV(U(0)).v);
        zeros = zeros - is_zero;
        less = less - is_zero;  // zero again
        signs.add(j, v & ~is_zero);
      } else {
        signs.add(j, v);
      }
      noted.add(less & fraction);
      exponent[j] = I::wrap((m >> W::fraction_bits).v);
    }
    negative += signs.total();
    if constexpr (sizeof(T) == 4) simd::narrow(exponent[0], exponent[1], exponent[2], exponent[3]).store(codes);
    if (noted.any()) note_group<T, many_zeros>(s, x, i);
  }

 public:
  GRADKERN_HD void finish(Scan<T>& s) const {
    s.negative += negative;
    for (int j = 0; many_zeros && j < lanes; ++j) s.zero += static_cast<std::int64_t>(zeros.v[j]);
    const auto smaller = [](T a, T b) { return a < b ? a : b; };
    const T most = simd::reduce(max(amax[0], amax[1]), T(0), [](T a, T b) { return a > b ? a : b; });
    const T least = simd::reduce(min(amin[0], amin[1]), std::numeric_limits<T>::infinity(), smaller);
    s.amax = base::bit_cast<U>(most);
    s.amin = base::bit_cast<U>(least) + 1;
  }
};

// The codes of vector_bytes entries whose magnitudes are normal in float32, or zero.
GRADKERN_HD void code_binades(const double* x, std::uint8_t* codes) {
  using simd::words;
  constexpr int lanes = simd::vector_bytes / 8;
  words code[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const auto load = [&](int k) { return simd::longs::wrap(simd::vec_f64::load(x + (2 * j + k) * lanes).v); };
    const words exponent = (simd::narrow(load(0) >> 32, load(1) >> 32) & words(INT32_MAX)) >> 20;
    code[j] = max(exponent - words(Wide<double>::bias - code_bias), words(0));
  }
  simd::narrow(code[0], code[1], code[2], code[3]).store(codes);
}

}  // namespace
}  // namespace gradkern::cpu
