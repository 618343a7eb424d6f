// Barriers, shuffles, votes and reductions of a warp, under CUDA's names.
#pragma once

#include <bit>
#include <type_traits>

#include "simt/executor.hpp"

inline void __syncthreads(GRADKERN_SITE) {
  gradkern::simt::block_barrier({"__syncthreads", line, file, function}, false);
}
inline int __syncthreads_or(int predicate, GRADKERN_SITE) {
  return gradkern::simt::block_barrier({"__syncthreads_or", line, file, function}, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, GRADKERN_SITE) {
  return gradkern::simt::block_barrier({"__syncthreads_and", line, file, function}, predicate == 0) == 0;
}
inline int __syncthreads_count(int predicate, GRADKERN_SITE) {
  return static_cast<int>(gradkern::simt::block_barrier({"__syncthreads_count", line, file, function}, predicate != 0));
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, GRADKERN_SITE) {
  int none = 0;
  gradkern::simt::warp_collective({"__syncwarp", line, file, function}, mask, none, [](auto) {});
}

namespace gradkern::simt {

template <class T>
inline constexpr bool is_shuffled = std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

// Lane `from(lane)` of every lane; a lane outside the segment of `width` lanes keeps its own value.
template <class T, class From>
T shuffle(const Site& site, unsigned mask, T value, int width, From from) {
  static_assert(is_shuffled<T>, "a shuffle moves 32 or 64 bits: int, unsigned, long long, float, double");
  if (width < 1 || width > 32 || (width & (width - 1))) fail(site, "the width is a power of two up to 32");
  struct Operand {
    T value, result;
    unsigned source;
  } mine{value, value, 0};
  const unsigned lane = running->lane, segment = lane & ~static_cast<unsigned>(width - 1);
  mine.source = from(lane, segment, static_cast<unsigned>(width));
  if (!(mask >> mine.source & 1)) fail(site, "reads from a lane that the mask does not name");
  warp_collective(site, mask, mine, [mask](auto at) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      Operand& operand = at(static_cast<unsigned>(std::countr_zero(rest)));
      operand.result = at(operand.source).value;
    }
  });
  return mine.result;
}

// combine(accumulated, operand) over the lanes in mask, in the order of the lanes; the result goes to all.
template <class R, class T, class Combine>
R reduce(const Site& site, unsigned mask, T value, R start, Combine combine) {
  struct Operand {
    T value;
    R result;
  } mine{value, start};
  warp_collective(site, mask, mine, [mask, start, combine](auto at) {
    R result = start;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const unsigned lane = static_cast<unsigned>(std::countr_zero(rest));
      result = combine(result, at(lane).value, lane);
    }
    for (unsigned rest = mask; rest; rest &= rest - 1)
      at(static_cast<unsigned>(std::countr_zero(rest))).result = result;
  });
  return mine.result;
}

}  // namespace gradkern::simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, GRADKERN_SITE) {
  return gradkern::simt::shuffle(
      {"__shfl_sync", line, file, function}, mask, value, width,
      [source](unsigned, unsigned segment, unsigned w) { return segment + (static_cast<unsigned>(source) & (w - 1)); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GRADKERN_SITE) {
  return gradkern::simt::shuffle(
      {"__shfl_up_sync", line, file, function}, mask, value, width,
      [delta](unsigned lane, unsigned segment, unsigned) { return lane - segment >= delta ? lane - delta : lane; });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GRADKERN_SITE) {
  return gradkern::simt::shuffle({"__shfl_down_sync", line, file, function}, mask, value, width,
                                 [delta](unsigned lane, unsigned segment, unsigned w) {
                                   return delta < w - (lane - segment) ? lane + delta : lane;
                                 });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, GRADKERN_SITE) {
  return gradkern::simt::shuffle({"__shfl_xor_sync", line, file, function}, mask, value, width,
                                 [bits](unsigned lane, unsigned segment, unsigned w) {
                                   const unsigned source = lane ^ static_cast<unsigned>(bits);
                                   return source < segment + w ? source : lane;
                                 });
}

inline unsigned __ballot_sync(unsigned mask, int predicate, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__ballot_sync", line, file, function}, mask, predicate, 0u,
                                [](unsigned all, int one, unsigned lane) { return all | unsigned(one != 0) << lane; });
}
inline int __any_sync(unsigned mask, int predicate, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__any_sync", line, file, function}, mask, predicate, 0,
                                [](int all, int one, unsigned) { return int(all || one); });
}
inline int __all_sync(unsigned mask, int predicate, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__all_sync", line, file, function}, mask, predicate, 1,
                                [](int all, int one, unsigned) { return int(all && one); });
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, GRADKERN_SITE) {
  static_assert(gradkern::simt::is_shuffled<T>);
  struct Operand {
    T value;
    unsigned same;
  } mine{value, 0};
  gradkern::simt::warp_collective({"__match_any_sync", line, file, function}, mask, mine, [mask](auto at) {
    for (unsigned a = 0; a < 32; ++a) {
      if (!(mask >> a & 1)) continue;
      for (unsigned b = 0; b < 32; ++b) {
        if (mask >> b & 1 && at(a).value == at(b).value) at(a).same |= 1u << b;
      }
    }
  });
  return mine.same;
}

// One lane: what a scheduler that runs each lane by itself may answer.
inline unsigned __activemask() { return 1u << gradkern::simt::running->lane; }

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_add_sync", line, file, function}, mask, value, 0u,
                                [](unsigned a, unsigned b, unsigned) { return a + b; });
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_min_sync", line, file, function}, mask, value, 0xFFFFFFFFu,
                                [](unsigned a, unsigned b, unsigned) { return a < b ? a : b; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_max_sync", line, file, function}, mask, value, 0u,
                                [](unsigned a, unsigned b, unsigned) { return a > b ? a : b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_and_sync", line, file, function}, mask, value, 0xFFFFFFFFu,
                                [](unsigned a, unsigned b, unsigned) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_or_sync", line, file, function}, mask, value, 0u,
                                [](unsigned a, unsigned b, unsigned) { return a | b; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, GRADKERN_SITE) {
  return gradkern::simt::reduce({"__reduce_xor_sync", line, file, function}, mask, value, 0u,
                                [](unsigned a, unsigned b, unsigned) { return a ^ b; });
}
