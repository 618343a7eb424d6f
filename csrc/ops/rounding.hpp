// What the rounding of a tensor did: RoundingCounts, and the value form of nearest-even used inside accumulation.
//
// max_ulp: the largest |stored - exact| in quanta of the destination at the exact value (nearest_even: at most 1/2).
// signal and noise: sums over the elements that are finite before and after, of exact^2 and (stored - exact)^2, each
// held in three ranges (Blue 1978) so that squares neither overflow nor underflow. Accumulation: in a block of 1024
// elements, element i adds to logical lane i % 16, and lanes are added by folding halves; then the 16 blocks of a chunk
// in index order, then chunks in index order. A square is rounded, then its addition.
#pragma once

#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "ops/number.hpp"

namespace gradkern::ops {

// The sum of squares of doubles of any size, as big * 2^1200 + medium + small * 2^-1200.
struct SquareSum {
  double big = 0, medium = 0, small = 0;

  GRADKERN_HD void add(double x, double weight = 1) {
    const double magnitude = abs(x);
    if (magnitude > 0x1p500) {
      big += (x * 0x1p-600) * (x * 0x1p-600) * weight;
    } else if (magnitude < 0x1p-480) {
      small += (x * 0x1p600) * (x * 0x1p600) * weight;
    } else {
      medium += x * x * weight;
    }
  }
  GRADKERN_HD void merge(const SquareSum& other) {
    big += other.big;
    medium += other.medium;
    small += other.small;
  }
};

inline constexpr int rounding_lanes = 16;
inline constexpr std::int64_t rounding_block = 1024, rounding_chunk = 16 * rounding_block;

// SquareSum in logical lanes: what one block adds up.
struct SquareLanes {
  double big[rounding_lanes] = {}, medium[rounding_lanes] = {}, small[rounding_lanes] = {};

  GRADKERN_HD void add(std::int64_t index, double x) {
    const std::int64_t lane = index % rounding_lanes;
    SquareSum sum{big[lane], medium[lane], small[lane]};
    sum.add(x);
    big[lane] = sum.big;
    medium[lane] = sum.medium;
    small[lane] = sum.small;
  }
  GRADKERN_HD SquareSum total() const { return {folded(big), folded(medium), folded(small)}; }

 private:
  static GRADKERN_HD double folded(const double (&lanes)[rounding_lanes]) {
    double sum[rounding_lanes / 2];
    for (int lane = 0; lane < rounding_lanes / 2; ++lane) sum[lane] = lanes[lane] + lanes[lane + rounding_lanes / 2];
    for (int half = rounding_lanes / 4; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) sum[lane] += sum[lane + half];
    return sum[0];
  }
};

struct RoundingSums {
  SquareLanes signal, noise;
};

// One element: x times the scale, rounded. A product that leaves float64 is still a finite, non-zero number.
template <class F>
GRADKERN_HD formats::Encoded<F> encode_scaled(double x, double exact, const formats::Mode& mode, std::uint64_t draw) {
  const double infinity = __builtin_inf();
  if (abs(exact) == infinity && abs(x) < infinity) return formats::overflowed<F>(x, mode);
  formats::Encoded<F> encoded = formats::encode<F>(exact, mode, draw);
  if (exact == 0 && x != 0) {
    encoded.event = formats::Event::flushed;
    encoded.changed = true;
  }
  return encoded;
}

// 2^exponent, where that is a normal number.
GRADKERN_HD double normal_power(int exponent) { return from_bits<double>(std::int64_t(exponent + 1023) << 52); }

// Counts one element, and adds it to the sums. Counts has what RoundingCounts has; Sums, what RoundingSums has.
template <class F, class Counts, class Sums>
GRADKERN_HD void record_rounding(double exact, const formats::Encoded<F>& encoded, std::int64_t index, Counts& counts,
                                 Sums& sums) {
  using formats::Event;
  counts.count(encoded.event);
  if (encoded.event == Event::overflow && counts.first_overflow < 0) counts.first_overflow = index;
  if (encoded.event == Event::flushed && counts.first_flushed < 0) counts.first_flushed = index;
  if (encoded.event == Event::nan || encoded.event == Event::inf) return;
  const double stored = formats::decode<F>(encoded.bits);
  const double error = stored - exact;
  if (!(abs(error) < __builtin_inf())) return;  // overflowed: no finite error
  sums.signal.add(index, exact);
  if (!encoded.changed) return;
  sums.noise.add(index, error);
  const int exponent = static_cast<int>((to_bits(exact) >> 52) & 0x7FF) - 1023;
  const int quantum = (exponent > formats::Layout<F>::min_exponent ? exponent : formats::Layout<F>::min_exponent) -
                      formats::Layout<F>::fraction_bits;
  const int half = -quantum / 2;  // 2^-quantum itself may be beyond float64
  const double ulps = abs(error) * normal_power(half) * normal_power(-quantum - half);
  if (ulps > counts.max_ulp) counts.max_ulp = ulps;
}

struct RoundingCounts {
  std::int64_t events[formats::event_count] = {};
  std::int64_t first_overflow = -1, first_flushed = -1;
  double max_ulp = 0;
  SquareSum signal, noise;

  GRADKERN_HD void count(formats::Event event) { ++events[static_cast<int>(event)]; }

  // The end of a block.
  GRADKERN_HD void add(const RoundingSums& sums) {
    signal.merge(sums.signal.total());
    noise.merge(sums.noise.total());
  }

  GRADKERN_HD void merge(const RoundingCounts& other) {
    for (int e = 0; e < formats::event_count; ++e) events[e] += other.events[e];
    if (first_overflow < 0) first_overflow = other.first_overflow;
    if (first_flushed < 0) first_flushed = other.first_flushed;
    if (other.max_ulp > max_ulp) max_ulp = other.max_ulp;
    signal.merge(other.signal);
    noise.merge(other.noise);
  }
};

// x (double lanes) rounded to nearest even in F, as a value: overflow gives inf, subnormals are kept, NaN stays.
template <class F, class V>
GRADKERN_HD V round_to_nearest_even(V x) {
  using L = formats::Layout<F>;
  using I = int_t<V>;
  constexpr int dropped = 53 - F::significand_bits;
  const I bits = to_bits(x);
  const I lsb = (bits >> dropped) & I(std::int64_t(1));
  const I low(std::int64_t((std::int64_t(1) << dropped) - 1));
  const V normal = from_bits<V>((bits + I((std::int64_t(1) << (dropped - 1)) - 1) + lsb) & (low ^ I(std::int64_t(-1))));
  // Adding and subtracting 2^(52 + q) rounds to the quantum 2^q.
  const V shifter(formats::exp2i(52 + L::min_quantum));
  const V tiny = copysign((abs(x) + shifter) - shifter, x);
  const V rounded = select(abs(x) < V(formats::exp2i(L::min_exponent)), tiny, normal);
  const V beyond(formats::exp2i(F::bias + 1));
  const V result = select(abs(rounded) >= beyond, copysign(V(__builtin_inf()), x), rounded);
  return select(x == x, result, x);
}

}  // namespace gradkern::ops
