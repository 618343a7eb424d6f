// What clipping asks of a gradient, and what multiplying it did: Survey, ClipFactor, ClipCounts.
//
// norm_p = (sum |x|^p)^(1/p) over the finite entries, p = 1, 2 or infinity. Accumulation: in a block of 2048 entries,
// entry i adds to float64 lane i % 16 (a square of at most 24 bits is exact, one of a float64 is rounded, then the sum);
// lanes are folded as lane j + lane j + 8, then 4, 2, 1; blocks, then chunks of 8, then tensors are added in index order
// in two words (Knuth 1997, TwoSum), so that their order moves no more than the last bit. A block whose powers could
// leave float64 is scaled by 2^600 or 2^-600 first (Blue 1978).
//
// Clipping: y = fl_s(fl_w(x * first * second)), w = float32 (float64 for float64); both products are exact where w is
// float32, first having 24 bits.
#pragma once

#include "formats/encode.hpp"
#include "ops/moments.hpp"

namespace gradkern::ops {

inline constexpr std::int64_t clip_block = 2048, clip_chunk = 8 * clip_block;

enum class Norm : int { one, two, infinity };

struct TwoWords {
  double high = 0, low = 0;

  GRADKERN_HD void add(double x) {
    const double sum = high + x, part = sum - high;
    low += (high - (sum - part)) + (x - part);
    high = sum;
  }
  GRADKERN_HD void merge(const TwoWords& other) {
    add(other.high);
    low += other.low;
  }
  GRADKERN_HD double value() const { return high + low; }
};

// The power of 2^-600 that a block is multiplied by, given its largest magnitude: sums of 2^100 terms stay in float64.
GRADKERN_HD int clip_range_of(double amax) { return amax > 0x1p450 ? 1 : amax != 0 && amax < 0x1p-400 ? -1 : 0; }

struct Survey {
  std::int64_t nan = 0, inf = 0, first_nonfinite = -1;
  double amax = 0;                // of the finite entries
  double amin = __builtin_inf();  // likewise, but for zeros; or 0, where nobody looked
  TwoWords big, medium, small;

  GRADKERN_HD void add(int range, double sum) {
    if (range == 0) medium.add(sum);
    if (range > 0) big.add(sum);
    if (range < 0) small.add(sum);
  }
  GRADKERN_HD void merge(const Survey& other) {
    nan += other.nan;
    inf += other.inf;
    if (first_nonfinite < 0) first_nonfinite = other.first_nonfinite;
    if (other.amax > amax) amax = other.amax;
    if (other.amin < amin) amin = other.amin;
    big.merge(other.big);
    medium.merge(other.medium);
    small.merge(other.small);
  }
};

// mantissa * 2^exponent: a norm may be beyond float64 though no entry is.
struct ScaledNorm {
  double mantissa;
  int exponent;
};

GRADKERN_HD ScaledNorm norm_of(const Survey& s, Norm p) {
  if (p == Norm::infinity) return {s.amax, 0};
  const double big = s.big.value(), medium = s.medium.value(), small = s.small.value();
  // Of the next range squares are 2^-1200 of this one's, magnitudes 2^-600.
  const auto down = [&](double x) { return p == Norm::two ? x * 0x1p-600 * 0x1p-600 : x * 0x1p-600; };
  const int range = big != 0 ? 1 : medium != 0 ? 0 : -1;
  const double sum = range > 0 ? big + down(medium) : range == 0 ? medium + down(small) : small;
  return {p == Norm::two ? __builtin_sqrt(sum) : sum, 600 * range};
}

// What a tensor is multiplied by: first * second, the second being 1 or a power of two.
struct ClipFactor {
  double first, second;
  bool write;  // false: the tensor is left alone
};

// Where its entries are moved to, values of its format.
struct ClipBounds {
  double low, high;
  bool write;
};

// What multiplying did to entries, or clamping them.
struct ClipCounts {
  std::int64_t flushed = 0;    // multiplied: not zero before, zero after; clamped: not finite, and set to zero
  std::int64_t subnormal = 0;  // multiplied: normal before, below the smallest normal after
  std::int64_t overflow = 0;   // multiplied: finite before, not after
  std::int64_t changed = 0;    // multiplied: not finite, and set to zero; clamped: were beyond their bounds

  GRADKERN_HD void merge(const ClipCounts& other) {
    flushed += other.flushed;
    subnormal += other.subnormal;
    overflow += other.overflow;
    changed += other.changed;
  }
};

// Magnitudes of F, or of a product about to be rounded to F, in lanes of T.
template <class F, class T>
struct ClipLimits {
  using L = formats::Layout<F>;
  static constexpr bool own = L::fraction_bits == (sizeof(T) == 4 ? 23 : 52);  // T is F: products are rounded already
  static constexpr double half = own ? 0 : formats::exp2i(L::min_quantum < -1073 ? -1074 : L::min_quantum - 1);
  static constexpr T smallest_normal = static_cast<T>(formats::exp2i(L::min_exponent));
  static constexpr T zero_to = static_cast<T>(half);  // the largest that rounds to zero
  static constexpr T subnormal_below = static_cast<T>(formats::exp2i(L::min_exponent) - half);
};

// One entry, the definition: also where something is not finite, before or after.
template <class F>
GRADKERN_HD typename F::container clip_entry(typename F::container stored, const ClipFactor& factor, bool zero,
                                             ClipCounts& counts) {
  constexpr bool wide = F::id == formats::FormatId::float64;
  const double x = formats::decode<F>(stored), infinity = __builtin_inf();
  const bool finite = abs(x) < infinity;
  if (!finite && zero) {
    ++counts.changed;
    return 0;
  }
  const double exact = x * factor.first * factor.second;
  const double product = canonical_nan(wide ? exact : static_cast<double>(static_cast<float>(exact)));
  const auto encoded = formats::encode<F>(product, formats::Mode{});
  const double y = formats::decode<F>(encoded.bits), smallest = formats::exp2i(formats::Layout<F>::min_exponent);
  counts.flushed += y == 0 && x != 0 && finite;
  counts.subnormal += y != 0 && abs(y) < smallest && abs(x) >= smallest;
  counts.overflow += finite && !(abs(y) < infinity);
  return encoded.bits;
}

}  // namespace gradkern::ops
