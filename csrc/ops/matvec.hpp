// A matrix in storage times a few float64 vectors, summed in float64.
//
//   y = W x      16 lanes, entry j of a row in lane j % 16, one fma a step, j ascending; folded as lane j + lane j + 8,
//                then 4, 2, 1
//   y = W^T x    y[j] = the chain of fma(W[i, j], x[i], .) from +0, i ascending
#pragma once

#include "ops/moments.hpp"

namespace gradkern::ops {

inline constexpr int matvec_lanes = statistics_lanes;

}  // namespace gradkern::ops
