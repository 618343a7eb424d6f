// d = a b + c of one warp by every mma, fragments loaded element by element as the PTX ISA tables them.
#pragma once

#include "cuda/platform.hpp"
#include "formats/format.hpp"

namespace gradkern::test {

using namespace gradkern::cuda;
using namespace gradkern::formats;

// Where element i of a lane's fragment lies: g = lane / 4 and t = lane % 4 are the groupID and threadID_in_group.
template <int element_bytes, int k>
struct Fragment;

template <>
struct Fragment<2, 16> {
  static __device__ int row_of_a(int g, int i) { return i < 2 || (4 <= i && i < 6) ? g : g + 8; }
  static __device__ int column_of_a(int t, int i) { return i < 4 ? 2 * t + (i & 1) : 2 * t + (i & 1) + 8; }
  static __device__ int row_of_b(int t, int i) { return i < 2 ? 2 * t + (i & 1) : 2 * t + (i & 1) + 8; }
};
template <>
struct Fragment<2, 8> {
  static __device__ int row_of_a(int g, int i) { return i < 2 ? g : g + 8; }
  static __device__ int column_of_a(int t, int i) { return 2 * t + (i & 1); }
  static __device__ int row_of_b(int t, int i) { return 2 * t + i; }
};
template <>
struct Fragment<4, 8> {
  static __device__ int row_of_a(int g, int i) { return i == 0 || i == 2 ? g : g + 8; }
  static __device__ int column_of_a(int t, int i) { return i < 2 ? t : t + 4; }
  static __device__ int row_of_b(int t, int i) { return i == 0 ? t : t + 4; }
};
template <>
struct Fragment<4, 4> {
  static __device__ int row_of_a(int g, int i) { return i == 0 ? g : g + 8; }
  static __device__ int column_of_a(int t, int) { return t; }
  static __device__ int row_of_b(int t, int) { return t; }
};
template <>
struct Fragment<1, 32> {
  static __device__ int row_of_a(int g, int i) { return i < 4 || (8 <= i && i < 12) ? g : g + 8; }
  static __device__ int column_of_a(int t, int i) { return i < 8 ? 4 * t + (i & 3) : 4 * t + (i & 3) + 16; }
  static __device__ int row_of_b(int t, int i) { return i < 4 ? 4 * t + (i & 3) : 4 * t + (i & 3) + 16; }
};

template <class A, class B, int k, class Accumulators, class InA, class InB>
__device__ __forceinline__ void step(Accumulators& d, const InA& a, const InB& b, const Accumulators& c) {
  if constexpr (k == 32) mma_m16n8k32<A, B>(d, a, b, c);
  if constexpr (k == 16) mma_m16n8k16<A>(d, a, b, c);
  if constexpr (k == 8) mma_m16n8k8<A>(d, a, b, c);
  if constexpr (k == 4) mma_m16n8k4<A>(d, a, b, c);
}

// a: 16 x k, b: k x 8, c and d: 16 x 8, all by rows, as bits; half: c and d are float16.
template <class A, class B, int k, bool half>
__global__ void product(const std::uint32_t* a, const std::uint32_t* b, const std::uint32_t* c, std::uint32_t* d) {
  constexpr int bytes = sizeof(typename A::container), each = 4 / bytes, bits = 8 * bytes;
  constexpr int words_a = 16 * k / 32 / each, words_b = 8 * k / 32 / each;
  using At = Fragment<bytes, k>;
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  std::uint32_t x[words_a] = {}, y[words_b] = {};
  for (int i = 0; i < words_a * each; ++i) {
    x[i / each] |= a[At::row_of_a(g, i) * k + At::column_of_a(t, i)] << (i % each * bits);
  }
  for (int i = 0; i < words_b * each; ++i) y[i / each] |= b[At::row_of_b(t, i) * 8 + g] << (i % each * bits);
  const auto at = [&](int i) { return (i < 2 ? g : g + 8) * 8 + 2 * t + (i & 1); };
  if constexpr (half) {
    std::uint32_t z[2] = {c[at(0)] | c[at(1)] << 16, c[at(2)] | c[at(3)] << 16};
    step<A, B, k>(z, x, y, z);
    for (int i = 0; i < 4; ++i) d[at(i)] = z[i / 2] >> (16 * (i % 2)) & 0xFFFF;
  } else {
    float z[4];
    for (int i = 0; i < 4; ++i) z[i] = __uint_as_float(c[at(i)]);
    step<A, B, k>(z, x, y, z);
    for (int i = 0; i < 4; ++i) d[at(i)] = __float_as_uint(z[i]);
  }
}

}  // namespace gradkern::test
