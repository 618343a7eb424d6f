#include "cpu/kernels.inl.hpp"

namespace gradkern::cpu {

const Kernels kernels_avx512 = table("avx512");

}  // namespace gradkern::cpu
