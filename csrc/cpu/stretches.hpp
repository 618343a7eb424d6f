// Products in float32, one stretch of k after another, each the way that suits its operands; to the same bits:
//
//   zeros      where a is all zeros, one row of c stands for all
//   gradual    where operands or sums are often subnormal, which makes an fma of many processors a hundred times slower,
//              through float64 lanes (cpu/gradual.inl.hpp)
//   plain      float32 lanes
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

// What kernels.product_float32 computes.
void product_in_stretches(const Kernels& kernels, const ProductLanes<float>& p, const ProductRange& range,
                          const ProductScratch<float>& scratch);

}  // namespace gradkern::cpu
