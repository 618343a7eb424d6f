// The 16 logical lanes of a reduction, one a thread of half a warp.
#pragma once

#include "cuda/platform.hpp"

namespace gradkern::cuda {

inline constexpr int folded_lanes = 16;

// By all threads of a warp, in each half of it: the lanes folded as lane j + lane j + 8, then 4, 2, 1: the same bits in all.
template <class T, class Combine>
__device__ __forceinline__ T reduce_lanes(T lane, Combine combine) {
  for (int width = folded_lanes / 2; width > 0; width /= 2) lane = combine(lane, __shfl_xor_sync(~0u, lane, width));
  return lane;
}
__device__ __forceinline__ double fold_lanes(double lane) {
  return reduce_lanes(lane, [](double a, double b) { return a + b; });
}

}  // namespace gradkern::cuda
