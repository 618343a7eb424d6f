// How products are cut on this processor. No bit depends on it.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

Blocking product_blocking();

}  // namespace gradkern::cpu
