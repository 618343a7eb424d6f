// A group of entries rounded to nearest even: the bits of formats/encode.hpp by the formulas of ops/rounding_lanes.hpp,
// in float32 where source and scale leave float32 values, else in float64. A group with a value that is not plain (beyond
// F's largest, not finite, or with a square that needs scaling) is refused; its entries are taken one by one.
#pragma once

#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {

// What the threads of a block counted of a chunk, in shared memory: of groups, and of entries that were taken one by one.
// A thread meets at most 64 entries of a chunk: a byte holds a count.
struct EntryCounts {
  double max_ulp[chunk_threads];
  int first_overflow[chunk_threads], first_flushed[chunk_threads];
  std::uint32_t of_groups[chunk_threads];
  std::uint8_t events[formats::event_count][chunk_threads];
};

// One thread's, as ops::RoundingCounts.
struct ThreadRounding {
  EntryCounts& entries;
  double& max_ulp;
  int &first_overflow, &first_flushed;
  int thread;
  // Of groups: bytes for inexact, subnormal and flushed.
  static constexpr std::uint32_t inexact = 1, subnormal = 1 << 8, flushed = 1 << 16;

  // Made where it is used, so that its addresses wait in no registers.
  __device__ __forceinline__ explicit ThreadRounding(EntryCounts& shared, int index = thread_anew())
      : entries(shared),
        max_ulp(shared.max_ulp[index]),
        first_overflow(shared.first_overflow[index]),
        first_flushed(shared.first_flushed[index]),
        thread(index) {}

  __device__ __forceinline__ void clear() {
    max_ulp = 0;
    first_overflow = first_flushed = -1;
    entries.of_groups[thread] = 0;
#pragma unroll
    for (int event = 0; event < formats::event_count; ++event) entries.events[event][thread] = 0;
  }

  // A group that starts at `index` of the chunk.
  template <class F, class Group>
  __device__ __forceinline__ void add(const Group& group, int index) {
    entries.of_groups[thread] += group.count + static_cast<std::uint32_t>(__popc(group.flushed_bits)) * flushed;
    const double ulps = static_cast<double>(group.ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1);
    if (ulps > max_ulp) max_ulp = ulps;
    if (group.flushed_bits && first_flushed < 0)
      first_flushed = index + __ffs(static_cast<int>(group.flushed_bits)) - 1;
  }

  __device__ __forceinline__ void count(formats::Event event) { ++entries.events[static_cast<int>(event)][thread]; }
  __device__ __forceinline__ unsigned events(formats::Event event) const {
    using formats::Event;
    const int place = event == Event::inexact ? 0 : event == Event::subnormal ? 8 : event == Event::flushed ? 16 : 24;
    return entries.events[static_cast<int>(event)][thread] + (entries.of_groups[thread] >> place & 0xFF);
  }
};

// The product with the scale; a NaN keeps its sign, which the device's product drops.
__device__ __forceinline__ double scaled(double x, double scale) { return x == x ? x * scale : x; }

// scale and 1 / scale in the lane type. In float32 the product counts only where it is exact.
template <class T>
struct Scale {
  T factor, inverse;

  explicit Scale(double scale) : factor(static_cast<T>(scale)), inverse(static_cast<T>(1 / scale)) {}
};

// x becomes the product; false, and x = 0, where it is not plain.
template <class F, class T>
__device__ __forceinline__ bool scale_plainly(T& x, const Scale<T>& scale) {
  const T product = x * scale.factor, a = ops::abs(product);
  bool plain = a <= ops::LaneLimits<F, T>::largest;
  if constexpr (sizeof(T) == 4) {
    plain &= product * scale.inverse == x;
  } else {
    plain &= (a >= 0x1p-420 && a < 0x1p500) || x == 0;
  }
  x = plain ? product : T(0);
  return plain;
}

// What rounding made of one plain value.
template <class T>
struct Rounded {
  T magnitude, error;  // error of the magnitude
  ops::int_t<T> binade;
};

template <class F, class T>
__device__ __forceinline__ Rounded<T> round_plain(T x, bool flush) {
  const T a = ops::abs(x);
  const ops::int_t<T> binade = ops::binade_bits<F>(a);
  T r = ops::round_magnitude<F>(a, binade);
  r = flush && r < ops::LaneLimits<F, T>::smallest_normal ? T(0) : r;
  return {r, r - a, binade};
}

// The pattern of y, a finite value of F; what is above its bits says nothing.
template <class F>
__device__ __forceinline__ std::uint64_t pattern_of_value(double y) {
  if constexpr (F::id == FormatId::float64) {
    return static_cast<std::uint64_t>(ops::to_bits(y));
  } else {
    return static_cast<std::uint32_t>(ops::pattern_of_finite<F>(static_cast<float>(y)));
  }
}

// The pattern of the rounded value, with the sign of x.
template <class F, class T>
__device__ __forceinline__ std::uint64_t pattern_of(T x, const Rounded<T>& rounded, bool flush) {
  if constexpr (sizeof(T) == 8) {
    return pattern_of_value<F>(ops::with_sign(rounded.magnitude, x));
  } else {
    const std::int32_t pattern = ops::pattern_of_rounded<F>(ops::abs(x), rounded.binade, rounded.magnitude, x);
    constexpr auto sign = static_cast<std::int32_t>(formats::Layout<F>::sign << F::container_shift);
    return static_cast<std::uint32_t>(flush && rounded.magnitude == 0 ? pattern & sign : pattern);
  }
}

// Puts it at entry k. Lanes of 64 bits are taken one by one, in a loop that does not know k: they come in at the end.
template <class F, class T, int count>
__device__ __forceinline__ void put_rounded(Words<count>& words, int k, T x, const Rounded<T>& rounded, bool flush) {
  const std::uint64_t pattern = pattern_of<F>(x, rounded, flush);
  if constexpr (sizeof(T) == 8) {
    shift_in_pattern<F>(words, pattern);
  } else {
    put_pattern<F>(words, k, static_cast<std::int32_t>(pattern));
  }
}

// What is counted of one group, before it is known that all of it is plain.
template <class T>
struct GroupCounts {
  std::uint32_t count = 0;         // inexact and subnormal, as in ThreadRounding
  std::uint32_t flushed_bits = 0;  // of entry k: bit k
  T ulp = 0;                       // the largest error, per binade

  template <class F>
  __device__ __forceinline__ void add(const Rounded<T>& rounded, int k) {
    const T r = rounded.magnitude;
    const bool changed = rounded.error != 0, zero = r == 0;
    const bool normal = r >= ops::LaneLimits<F, T>::smallest_normal;
    if (normal && changed) count += ThreadRounding::inexact;
    if (!normal && !zero) count += ThreadRounding::subnormal;
    if (zero && changed) flushed_bits |= std::uint32_t(1) << k;
    ulp = ops::max(ops::error_per_binade(rounded.error, rounded.binade), ulp);
  }
};

}  // namespace gradkern::cuda
