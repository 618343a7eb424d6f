// Counts the bit patterns of a large tensor, and has its statistics from them (ops/patterns.hpp).
//
// The counters of the few binades where most entries lie fit L1 for formats of at most 8 significand bits. For float16
// they do not: it is measured in lanes.
#pragma once

#include "executor/kernels.hpp"

namespace gradkern::cpu {

void measure_by_pattern(const executor::StatisticsArgs& args, ops::Statistics& s);

}  // namespace gradkern::cpu
