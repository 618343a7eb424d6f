#include "cpu/kernels.inl.hpp"

namespace gradkern::cpu {

const Kernels kernels_avx2 = table("avx2");

}  // namespace gradkern::cpu
