// Sums of a whole block without zeros in a format of 16 bits, looked at as it is stored and never widened: for processors
// that are short of units for conversions.
//
//   x = +-m 2^(e - low) unit,   unit = 2^(low - bias - fraction bits)
//   sum |x| = unit sum m 2^(e - low) + those with e < low,   sum x likewise
//
// m is the significand as an integer, e the exponent as it is stored. The powers come from a table; products of 16-bit
// integers are added in 32 bits without a sign, 128 of them to a lane, m below 2^11 and powers up to 2^14. So a table is a window of 15
// exponents; two of them are one of 30. The few entries below it are taken when the block is scanned, and added by
// themselves. Exponents within 32 leave all these sums exact in float64: in any order they are the bits of
// ops/moments.hpp. Squares are summed in its lanes here, too.
#pragma once

#include <algorithm>

#include "cpu/halves.inl.hpp"
#include "formats/decode.hpp"
#include "simd/dots.hpp"

namespace gradkern::cpu {
namespace {

// The exponents of [low, low + 15 * tables) and their powers.
template <class F>
class Windows {
 public:
  static constexpr int width = 15, exponents = 32;

  // As far up as an exponent, or further.
  void move(int top, int tables) {
    low_ = std::max(top - width * tables + 1, 1);
    tables_ = tables;
    std::fill_n(&power_[0][0], 2 * exponents, std::uint16_t(0));
    for (int k = 0; k < width * tables; ++k) power_[k / width][(low_ + k) % exponents] = std::uint16_t(1 << k % width);
  }
  int tables() const { return tables_; }
  int low() const { return low_; }
  int top() const { return low_ + width * tables_ - 1; }
  // Whether all of a block's exponents are told from one another, and none is above.
  bool hold(int least, int most) const { return most <= top() && least > top() - exponents; }
  simd::halves powers(int table) const { return simd::halves::load(power_[table]); }
  double unit() const { return formats::exp2i(low_ - F::bias - (F::significand_bits - 1)); }

 private:
  int low_ = 1, tables_ = 0;
  alignas(64) std::uint16_t power_[2][exponents];
};

#if defined(GRADKERN_SIMD_AVX512)

template <class F, int tables>
class DotSums {
 public:
  explicit GRADKERN_HD DotSums(const Windows<F>& windows) {
    for (int t = 0; t < tables; ++t) {
      power_[t] = windows.powers(t);
      all_[t] = negative_[t] = simd::words(0);
    }
    for (auto& s : square_) s = simd::quad_f64(0.0);
  }

  GRADKERN_HD void add(simd::halves v) {
    const V significand = simd::select_bits(V(hidden - 1), v, V(hidden)), index = v >> fraction_bits;
    const V negative = simd::where_negative(v, significand);
#pragma GCC unroll 2
    for (int t = 0; t < tables; ++t) {
      const V power = simd::pick(power_[t], index);
      all_[t] = simd::add_dot(all_[t], significand, power);
      negative_[t] = simd::add_dot(negative_[t], negative, power);
    }
  }

  // Of sixteen entries.
  GRADKERN_HD void add_squares(const std::uint16_t* stored) {
    if constexpr (F::exponent_bits == 8) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(stored));
      add_square(0, simd::magnitudes_up<0, 15>(v));
      add_square(1, simd::magnitudes_up<16, 15>(v));
      add_square(2, simd::magnitudes_up<32, 15>(v));
      add_square(3, simd::magnitudes_up<48, 15>(v));
    } else {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(stored + 8 * j));
        const __m256i v = _mm256_castps_si256(_mm256_cvtph_ps(eight));
        add_square(2 * j, simd::magnitudes_up<0, 31>(v));
        add_square(2 * j + 1, simd::magnitudes_up<32, 31>(v));
      }
    }
  }

  GRADKERN_HD ops::BlockSums total(double unit) const {
    const auto sum_of = [](const simd::words(&lanes)[tables]) {
      std::int64_t sum = 0;
      for (int t = 0; t < tables; ++t) sum += simd::sum_unsigned(lanes[t]) << (Windows<F>::width * t);
      return sum;
    };
    const std::int64_t all = sum_of(all_), negative = sum_of(negative_);
    const auto add = [](auto a, auto b) { return a + b; };
    double square;
    if constexpr (F::exponent_bits == 8) {  // lane k of vector p has the entries 4 k + p
      double parts[4];
      for (int p = 0; p < 4; ++p) parts[p] = simd::reduce(square_[p], add);
      square = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    } else {  // lane k of vectors p and p + 2: 2 k + p, and as many in the other eight
      square = simd::reduce(square_[0] + square_[2], add) + simd::reduce(square_[1] + square_[3], add);
    }
    return {static_cast<double>(all - 2 * negative) * unit, static_cast<double>(all) * unit, square * 0x1p-256};
  }

 private:
  using V = simd::halves;
  static constexpr int fraction_bits = F::significand_bits - 1, hidden = 1 << fraction_bits;
  GRADKERN_HD void add_square(int j, simd::quad_f64 v) { square_[j] = fma(v, v, square_[j]); }

  V power_[tables];
  simd::words all_[tables], negative_[tables];
  simd::quad_f64 square_[4];
};

// All in one pass. The sums lack what lies below the windows.
template <int tables, class F>
__attribute__((noinline)) ops::BlockSums scan_and_dot(Halves<F> source, const Windows<F>& windows,
                                                      HalfScanner<F, true>& scanner, std::uint8_t* codes) {
  using V = simd::halves;
  constexpr int lanes = simd::vector_bytes / 2;
  HalfScanner<F, true> held;
  held.begin(scanner);
  DotSums<F, tables> sums(windows);
  for (std::int64_t i = 0; i < statistics_block; i += simd::vector_bytes) {
    const auto entries = [&](int j) {
      const V v = source.ahead.fetch(V::load(source.stored + i + j * lanes), i, j * lanes);
      sums.add(v);
      return v;
    };
    held.step(entries, source.stored + i, codes + i);
#pragma GCC unroll 4
    for (int j = 0; j < simd::vector_bytes; j += ops::statistics_lanes) sums.add_squares(source.stored + i + j);
  }
  scanner.merge(held);
  return sums.total(windows.unit());
}

// Adds those of some entries whose exponents are below `low`; how many there are.
template <class F>
GRADKERN_HD int add_below(int low, const std::uint16_t* taken, const std::uint16_t* end, ops::BlockSums& sums) {
  using V = simd::halves;
  constexpr int lanes = simd::vector_bytes / 2;
  const V limit(static_cast<std::uint16_t>(low << (F::significand_bits - 1)));
  int count = 0;
  for (; taken < end; taken += lanes) {
    const std::int64_t some = std::min<std::int64_t>(end - taken, lanes);
    const V magnitude = V::load_partial(taken, some) & V(0x7FFF);
    std::uint64_t below = simd::where_set(simd::minus_or_zero(limit, magnitude), V(0xFFFF));
    below &= ~std::uint64_t(0) >> (64 - some);
    count += __builtin_popcountll(below);
    for (; below; below &= below - 1) {
      const double x = formats::decode<F>(taken[__builtin_ctzll(below)]);
      sums.sum += x;
      sums.magnitude += ops::abs(x);
    }
  }
  return count;
}

#endif

}  // namespace
}  // namespace gradkern::cpu
