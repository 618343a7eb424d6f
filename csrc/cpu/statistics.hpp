// Statistics of tensors, their blocks dealt to threads.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

void measure_tensors(const Kernels& kernels, const executor::StatisticsArgs* tensors, std::int64_t count,
                     const executor::StatisticsDone& done);

}  // namespace gradkern::cpu
