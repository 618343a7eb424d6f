// Every kernel of the tests, for nvcc: that the device's side of cuda/platform.hpp compiles and links with nothing.
#include "simt_kernels.hpp"
#include "simt_matrix_kernels.hpp"

namespace gradkern::test {

template __global__ void shuffles(const int*, int*);
template __global__ void shuffles(const unsigned*, unsigned*);
template __global__ void shuffles(const long long*, long long*);
template __global__ void shuffles(const unsigned long long*, unsigned long long*);
template __global__ void shuffles(const float*, float*);
template __global__ void shuffles(const double*, double*);
template __global__ void pipeline<true, true>(const float*, float*, int);
template __global__ void matrices<1, false>(std::uint16_t*);
template __global__ void matrices<2, false>(std::uint16_t*);
template __global__ void matrices<4, false>(std::uint16_t*);
template __global__ void matrices<1, true>(std::uint16_t*);
template __global__ void matrices<2, true>(std::uint16_t*);
template __global__ void matrices<4, true>(std::uint16_t*);

using Bits = std::uint32_t;
template __global__ void product<float16, float16, 16, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float16, float16, 16, true>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float16, float16, 8, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float16, float16, 8, true>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<bfloat16, bfloat16, 16, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<bfloat16, bfloat16, 8, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<tfloat32, tfloat32, 8, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<tfloat32, tfloat32, 4, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float8_e4m3fn, float8_e4m3fn, 32, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float8_e4m3fn, float8_e5m2, 32, true>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float8_e5m2, float8_e4m3fn, 32, false>(const Bits*, const Bits*, const Bits*, Bits*);
template __global__ void product<float8_e5m2, float8_e5m2, 32, true>(const Bits*, const Bits*, const Bits*, Bits*);

int launched(const float* in, float* out, stream_t stream) {
  return launch(pipeline<true, true>, 1, 32, 64 << 10, stream, in, out, 4);
}

}  // namespace gradkern::test
