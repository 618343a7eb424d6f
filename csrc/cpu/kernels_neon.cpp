#include "cpu/kernels.inl.hpp"

namespace gradkern::cpu {

const Kernels kernels_neon = table("neon");

}  // namespace gradkern::cpu
