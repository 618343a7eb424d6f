#include "cpu/kernels.inl.hpp"

namespace gradkern::cpu {

const Kernels kernels_base = table("base");

}  // namespace gradkern::cpu
