// Brings the operands of products into the lane type, deals ranges to threads, and calls the instruction set's loop.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

void packed_products(const Kernels& kernels, const executor::ProductArgs* products, std::int64_t count);

}  // namespace gradkern::cpu
