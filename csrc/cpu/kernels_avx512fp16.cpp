#include "cpu/kernels.inl.hpp"

namespace gradkern::cpu {

const Kernels kernels_avx512fp16 = table("avx512fp16");

}  // namespace gradkern::cpu
