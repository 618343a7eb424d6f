// Packs the operands of a product into the lane type, deals tiles to threads, and calls the instruction set's loop.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

void packed_product(const Kernels& kernels, const executor::ProductArgs& args);

}  // namespace gradkern::cpu
