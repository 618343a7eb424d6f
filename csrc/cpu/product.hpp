// Brings the operands of products into the lane type, deals ranges to threads, and calls the instruction set's loop.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

void packed_products(const Kernels& kernels, const executor::ProductArgs* products, std::int64_t count);

// Whether these kernels multiply on such a unit by an instruction of this processor's. GRADKERN_UNITS=software has the
// products do without.
bool has_own_instruction(const Kernels& kernels, mma::Form form);

}  // namespace gradkern::cpu
