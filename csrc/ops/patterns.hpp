// Statistics of many entries of few bits, from how often each bit pattern occurs.
//
// mean = S / n and squares about it, S being the sum of count * x over the patterns in index order: two words hold each
// sum, so that all moments are within an ulp or two of exact, whatever the order of the entries.
#pragma once

#include "formats/decode.hpp"
#include "ops/elementary_core.hpp"
#include "ops/statistics.hpp"

namespace gradkern::ops {

// A sum in two words.
struct DoubleSum {
  double high = 0, low = 0;

  GRADKERN_HD void add(double x) {
    const auto sum = two_sum(high, x);
    high = sum.hi;
    low += sum.lo;
  }
  // count * x, exactly: x, an entry or its square, has at most 16 significant bits.
  GRADKERN_HD void add_times(std::int64_t count, double x) {
    constexpr std::int64_t half = std::int64_t(1) << 31;
    add(static_cast<double>(count % half) * x);
    if (count >= half) add(static_cast<double>(count / half) * (0x1p31 * x));
  }
  GRADKERN_HD double value() const { return high + low; }
};

// visit(x, count) for each pattern that occurs, in the order of the patterns.
template <class F, class Visit>
GRADKERN_HD void for_patterns(const std::int64_t* counts, Visit visit) {
  using container = typename F::container;
  for (std::int64_t pattern = 0; pattern < std::int64_t(1) << (8 * sizeof(container)); ++pattern)
    if (counts[pattern]) visit(formats::decode<F>(static_cast<container>(pattern)), counts[pattern]);
}

template <class F>
GRADKERN_HD Moments moments_of_patterns(const std::int64_t* counts, std::int64_t finite) {
  const auto each = [&](auto add) {
    for_patterns<F>(counts, [&](double x, std::int64_t count) {
      if (abs(x) < __builtin_inf()) add(x, count);
    });
  };
  Moments m;
  if (finite == 0) return m;
  m.finite = static_cast<double>(finite);
  DoubleSum sum, magnitudes, squares, about;
  int distinct = 0;
  each([&](double x, std::int64_t count) {
    sum.add_times(count, x);
    magnitudes.add_times(count, abs(x));
    squares.add_times(count, x * x);
    ++distinct;
  });
  const double mean = sum.value() / m.finite;
  const auto back = two_product(mean, m.finite);
  m.move_mean(mean, ((sum.high - back.hi) - back.lo + sum.low) / m.finite);
  each([&](double x, std::int64_t count) {
    const double deviation = (x - m.mean) - m.mean_rest;
    about.add(static_cast<double>(count) * (deviation * deviation));
  });
  m.l1 = magnitudes.value();
  m.squares.medium = squares.value();
  m.deviations.medium = distinct == 1 ? 0 : about.value();
  return m;
}

// counts[pattern]: how many entries have it. first_nonfinite is the caller's to find where there is one.
template <class F>
GRADKERN_HD void statistics_of_patterns(const std::int64_t* counts, Statistics& s) {
  std::int64_t finite = 0;
  for_patterns<F>(counts, [&](double x, std::int64_t count) {
    s.size += count;
    if (count_entry(s, x, -1, count)) finite += count;
  });
  s.moments = moments_of_patterns<F>(counts, finite);
}

}  // namespace gradkern::ops
