// Equality of bits of what operations count and add up, for the tests that compare executors.
#pragma once

#include <algorithm>
#include <iterator>

#include "check.hpp"
#include "ops/clip.hpp"
#include "ops/moments.hpp"
#include "ops/rounding.hpp"
#include "ops/update.hpp"

namespace gradkern::test {

inline bool same(const ops::SquareSum& a, const ops::SquareSum& b) {
  return same(a.big, b.big) && same(a.medium, b.medium) && same(a.small, b.small);
}

inline bool same(const ops::Moments& a, const ops::Moments& b) {
  return a.finite == b.finite && same(a.mean, b.mean) && same(a.mean_rest, b.mean_rest) && same(a.l1, b.l1) &&
         same(a.deviations, b.deviations) && same(a.squares, b.squares);
}

inline bool same(const ops::RoundingCounts& a, const ops::RoundingCounts& b) {
  return std::equal(std::begin(a.events), std::end(a.events), std::begin(b.events)) &&
         a.first_overflow == b.first_overflow && a.first_flushed == b.first_flushed && same(a.max_ulp, b.max_ulp) &&
         same(a.signal, b.signal) && same(a.noise, b.noise);
}

inline bool same(const ops::UpdateCounts& a, const ops::UpdateCounts& b) {
  return a.unchanged == b.unchanged && a.applied == b.applied && a.lost == b.lost && a.overflow == b.overflow &&
         a.nonfinite == b.nonfinite && a.flushed == b.flushed && a.subnormal == b.subnormal &&
         a.first_overflow == b.first_overflow && a.first_nonfinite == b.first_nonfinite && same(a.wanted, b.wanted) &&
         same(a.made, b.made);
}

inline bool same(const ops::TwoWords& a, const ops::TwoWords& b) { return same(a.high, b.high) && same(a.low, b.low); }

inline bool same(const ops::Survey& a, const ops::Survey& b) {
  return a.nan == b.nan && a.inf == b.inf && a.first_nonfinite == b.first_nonfinite && same(a.amax, b.amax) &&
         same(a.big, b.big) && same(a.medium, b.medium) && same(a.small, b.small);
}

inline bool same(const ops::ClipCounts& a, const ops::ClipCounts& b) {
  return a.flushed == b.flushed && a.subnormal == b.subnormal && a.overflow == b.overflow && a.changed == b.changed;
}

}  // namespace gradkern::test
