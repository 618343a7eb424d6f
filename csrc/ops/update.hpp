// One step of gradient descent: w' = fl_s(fl_64(w - rate g)), and what rounding made of the update.
//
// w is in a storage format s, g in any format, rate = lr / (loss scale) is a float64. fl_64 is one fma in float64,
// whatever s is: were it one in float32, updates below half an ulp of that would be gone before stochastic rounding
// could see them. fl_s is encode, once, in any mode; for float64 storage it changes nothing but subnormals.
//
// The update wanted is u = fl_64(rate g). Of `size` entries, unchanged + applied + lost + overflow + nonfinite are all.
// Sums of u^2 and (w' - w)^2 are over entries finite before and after, in the lanes, blocks and chunks of ops/rounding.hpp.
#pragma once

#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "ops/number.hpp"
#include "ops/rounding.hpp"

namespace gradkern::ops {

struct UpdateSums {
  SquareLanes wanted, made;
};

struct UpdateCounts {
  std::int64_t unchanged = 0;  // u = 0, and w' = w
  std::int64_t applied = 0;    // w' differs from w, both finite
  std::int64_t lost = 0;       // u is not zero, but w' = w
  std::int64_t overflow = 0;   // w and g finite, w - u beyond the format
  std::int64_t nonfinite = 0;  // w or g was NaN or infinite
  std::int64_t flushed = 0;    // of those finite after: zero, though w - u is not
  std::int64_t subnormal = 0;  // of those finite after: below the smallest normal
  std::int64_t first_overflow = -1, first_nonfinite = -1;
  SquareSum wanted, made;

  // The end of a block.
  GRADKERN_HD void add(const UpdateSums& sums) {
    wanted.merge(sums.wanted.total());
    made.merge(sums.made.total());
  }
  GRADKERN_HD void merge(const UpdateCounts& other) {
    unchanged += other.unchanged;
    applied += other.applied;
    lost += other.lost;
    overflow += other.overflow;
    nonfinite += other.nonfinite;
    flushed += other.flushed;
    subnormal += other.subnormal;
    if (first_overflow < 0) first_overflow = other.first_overflow;
    if (first_nonfinite < 0) first_nonfinite = other.first_nonfinite;
    wanted.merge(other.wanted);
    made.merge(other.made);
  }
};

// fl_64(w - rate g), a NaN being the positive one.
template <class V>
GRADKERN_HD V descended(V w, V g, V rate) {
  return canonical_nan(fma(-rate, g, w));
}

// One entry, the definition. Counts has what UpdateCounts has; Sums, what UpdateSums has.
template <class F, class Counts, class Sums>
GRADKERN_HD typename F::container update_entry(double w, double g, double rate, const formats::Mode& mode,
                                               std::uint64_t draw, std::int64_t index, Counts& counts, Sums& sums) {
  const double infinity = __builtin_inf(), exact = descended(w, g, rate), wanted = rate * g;
  const bool finite = abs(w) < infinity && abs(g) < infinity;
  const bool beyond = finite && !(abs(exact) < infinity);  // beyond float64 itself
  const auto encoded = beyond ? formats::overflowed<F>(exact, mode) : formats::encode<F>(exact, mode, draw);
  if (!finite) {
    ++counts.nonfinite;
    if (counts.first_nonfinite < 0) counts.first_nonfinite = index;
    return encoded.bits;
  }
  const double stored = formats::decode<F>(encoded.bits), made = stored - w;
  if (encoded.event == formats::Event::overflow) {
    ++counts.overflow;
    if (counts.first_overflow < 0) counts.first_overflow = index;
  } else if (stored != w) {
    ++counts.applied;
  } else {
    ++(wanted == 0 ? counts.unchanged : counts.lost);
  }
  if (!(abs(stored) < infinity) || !(abs(wanted) < infinity) || !(abs(made) < infinity)) return encoded.bits;
  counts.flushed += encoded.event == formats::Event::flushed;
  counts.subnormal += encoded.event == formats::Event::subnormal;
  sums.wanted.add(index, wanted);
  sums.made.add(index, made);
  return encoded.bits;
}

}  // namespace gradkern::ops
