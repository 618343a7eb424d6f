// A group of entries rounded to nearest even: the bits of formats/encode.hpp by the formulas of ops/rounding_lanes.hpp,
// in float32 where source and scale leave float32 values, else in float64. A group with a value that is not plain (beyond
// F's largest, not finite, or with a square that needs scaling) is refused; its entries are taken one by one.
#pragma once

#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {

// Rounding otherwise than to nearest even, and float64 to float8, is bound by its arithmetic, which 40 registers do not hold.
template <class F, class T, bool nearest>
inline constexpr int report_blocks =
    nearest && (sizeof(T) == 4 || sizeof(typename F::container) > 1) ? chunk_blocks : chunk_blocks - 1;

// Where nothing is counted, a thread takes one group.
inline constexpr int tile_threads = 256, tile_blocks = 6;

// What the threads of a block count of a chunk, in shared memory.
struct ChunkRounding {
  double max_ulp[chunk_warps];  // of a warp's own block
  unsigned events[formats::event_count], first_overflow, first_flushed;
  std::uint32_t of_groups[chunk_threads];  // as ThreadCounts says

  // By every thread, before a barrier.
  __device__ __forceinline__ void clear() {
    of_groups[thread_anew()] = 0;
    if (thread_anew() < chunk_warps) max_ulp[thread_anew()] = 0;
    if (thread_anew() < formats::event_count) events[thread_anew()] = 0;
    if (thread_anew() == 0) first_overflow = first_flushed = ~0u;
  }
};

// The least index in a chunk, as something that is always unset and can be set.
struct FirstIndex {
  unsigned& least;

  __device__ __forceinline__ operator int() const { return -1; }
  __device__ __forceinline__ void operator=(std::int64_t index) const {
    atomicMin(&least, static_cast<unsigned>(index));
  }
};

// The largest of a warp's errors into the chunk's; by all of its threads.
__device__ __forceinline__ void add_max_ulp(ChunkRounding& chunk, double ulp) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) ulp = ops::max(ulp, __shfl_xor_sync(~0u, ulp, lane));
  double& most = chunk.max_ulp[Chunk::warp()];
  if (thread_anew() % 32 == 0 && ulp > most) most = ulp;
}

// Counts entries that are taken one by one, as ops::RoundingCounts does, into the chunk's.
struct EntryRounding {
  ChunkRounding& chunk;
  FirstIndex first_overflow, first_flushed;
  double max_ulp = 0;

  __device__ __forceinline__ explicit EntryRounding(ChunkRounding& shared)
      : chunk(shared), first_overflow{shared.first_overflow}, first_flushed{shared.first_flushed} {}

  __device__ __forceinline__ void count(formats::Event event) {
    if (event != formats::Event::exact) atomicAdd(&chunk.events[static_cast<int>(event)], 1u);
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

// Of the groups that a thread takes of a chunk, 32 entries, so that a number of them has 6 bits: the numbers of inexact,
// subnormal and flushed entries, and the index in the chunk of the first that was flushed.
struct ThreadCounts {
  std::uint32_t& count;
  static constexpr std::uint32_t inexact = 1, subnormal = 1 << 6, flushed = 1 << 12, first = 1 << 18, number = 63;
  static_assert(chunk_size <= 1 << 14 && block_size / 32 <= number);

  __device__ __forceinline__ explicit ThreadCounts(ChunkRounding& chunk) : count(chunk.of_groups[thread_anew()]) {}

  // A group that starts at `index` of the chunk: its inexact and subnormal entries, and bit k of entry k that was flushed.
  __device__ __forceinline__ void add(std::uint32_t more, std::uint32_t flushed_bits, int index) const {
    if (flushed_bits) {
      more += static_cast<std::uint32_t>(__popc(flushed_bits)) * flushed;
      if (!(count / flushed & number))
        more += static_cast<unsigned>(index + __ffs(static_cast<int>(flushed_bits)) - 1) * first;
    }
    count += more;
  }

  // By every thread of a warp, which has gone through its block.
  __device__ __forceinline__ void add_to_chunk(ChunkRounding& chunk) const {
    using formats::Event;
    const unsigned flushes = count / flushed & number;
    add_to(&chunk.events[static_cast<int>(Event::inexact)], count & number);
    add_to(&chunk.events[static_cast<int>(Event::subnormal)], count / subnormal & number);
    add_to(&chunk.events[static_cast<int>(Event::flushed)], flushes);
    least_of(&chunk.first_flushed, flushes ? static_cast<int>(count / first) : -1);
  }
};

// What is counted of one group, before it is known that all of it is plain: as in ThreadCounts.
struct GroupCounts {
  std::uint32_t count = 0, flushed_bits = 0;

  template <class F, class T>
  __device__ __forceinline__ void add(const Rounded<T>& rounded, int k) {
    const T r = rounded.magnitude;
    const bool changed = rounded.error != 0, zero = r == 0;
    const bool normal = r >= ops::LaneLimits<F, T>::smallest_normal;
    if (normal && changed) count += ThreadCounts::inexact;
    if (!normal && !zero) count += ThreadCounts::subnormal;
    if (zero && changed) flushed_bits |= std::uint32_t(1) << k;
  }
};

}  // namespace gradkern::cuda
