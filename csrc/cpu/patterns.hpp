// Counts the bit patterns of a large tensor of bytes, and has its statistics from them (ops/patterns.hpp).
#pragma once

#include "executor/kernels.hpp"

namespace gradkern::cpu {

void measure_by_pattern(const executor::StatisticsArgs& args, ops::Statistics& s);

}  // namespace gradkern::cpu
