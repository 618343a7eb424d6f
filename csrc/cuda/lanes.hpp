// Stored numbers as what a product of CUDA cores computes in: float32, float64, or the bits of float16 and bfloat16.
// All of it is exact, by one instruction (float16, e5m2), or by 32-bit integer operations and one multiplication; NaN
// becomes some NaN.
#pragma once

#include "cuda/platform.hpp"
#include "formats/decode.hpp"
#include "ops/dense.hpp"

namespace gradkern::cuda {

using formats::FormatId;

// The value of a pattern of 32 bits or fewer, as float32.
template <class F>
__device__ __forceinline__ float decode_f32(std::uint32_t bits) {
  using L = formats::Layout<F>;
  if constexpr (L::fraction_bits == 23 || F::container_shift != 0) {
    return __uint_as_float(bits);
  } else if constexpr (F::exponent_bits == 8) {
    return __uint_as_float(bits << (23 - L::fraction_bits));
  } else if constexpr (F::exponent_bits == 5) {  // float16, or the upper byte of one
    return float_of_f16(static_cast<std::uint16_t>(bits << (10 - L::fraction_bits)));
  } else {
    const std::uint32_t magnitude = bits & static_cast<std::uint32_t>(L::sign - 1);
    const std::uint32_t sign = (bits & static_cast<std::uint32_t>(L::sign)) << (32 - L::bits);
    // With the exponent field in place the value is too small by a power of two; subnormals are right with it.
    const float scale = __uint_as_float(static_cast<std::uint32_t>(254 - F::bias) << 23);
    const std::uint32_t value = __float_as_uint(__uint_as_float(magnitude << (23 - L::fraction_bits)) * scale);
    const bool finite = magnitude <= static_cast<std::uint32_t>(L::max_finite);
    return __uint_as_float(sign | (finite ? value : value | 0x7F800000u));
  }
}

// Entry `index` of a tensor, as float or double.
template <class T>
__device__ __forceinline__ T load_value(FormatId format, const void* data, std::int64_t index) {
  return formats::visit(format, [&](auto f) {
    using F = decltype(f);
    const auto bits = load(static_cast<const typename F::container*>(data) + index);
    if constexpr (F::id == FormatId::float64) {
      return static_cast<T>(formats::decode<F>(bits));
    } else {
      return static_cast<T>(decode_f32<F>(bits));
    }
  });
}

// The pattern of a float32 that F, float16 or bfloat16, represents exactly.
template <class F>
__device__ __forceinline__ std::uint16_t encode_exact(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  if constexpr (F::exponent_bits == 8) {
    return static_cast<std::uint16_t>(bits >> 16);
  } else {
    const std::uint32_t magnitude = bits & 0x7FFFFFFFu, sign = bits >> 16 & 0x8000u;
    const float absolute = __uint_as_float(magnitude);
    const auto subnormal =
        static_cast<std::uint32_t>(static_cast<int>(absolute < 0x1p-14f ? absolute * 0x1p24f : 0.0f));
    const std::uint32_t normal = (magnitude - (112u << 23)) >> 13;
    const std::uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    return static_cast<std::uint16_t>(sign | (absolute < 0x1p-14f ? subnormal : absolute < 0x1p16f ? normal : special));
  }
}

// float32 rounded to tfloat32, ties to even: infinity beyond the largest, NaN stays NaN.
__device__ __forceinline__ std::uint32_t round_tfloat32(std::uint32_t bits) {
  const std::uint32_t rounded = (bits + 0xFFFu + (bits >> 13 & 1u)) & ~0x1FFFu;
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x400000u : rounded;
}

// What a chain runs in. decode: from the bits of a format of 32 bits or fewer; wide: what the result is stored as.
struct LaneFloat32 {
  using type = float;
  using wide = float;
  template <class F>
  static __device__ __forceinline__ float decode(std::uint32_t bits) {
    return decode_f32<F>(bits);
  }
  static __device__ __forceinline__ float from_wide(float x) { return x; }
  static __device__ __forceinline__ float to_wide(float x) { return x; }
  static __device__ __forceinline__ float one() { return 1.0f; }
  static __device__ __forceinline__ float step(float x, float w, float sum) { return ops::fma(x, w, sum); }
};

struct LaneFloat64 {
  using type = double;
  using wide = double;
  template <class F>
  static __device__ __forceinline__ double decode(std::uint32_t bits) {
    return static_cast<double>(decode_f32<F>(bits));
  }
  static __device__ __forceinline__ double from_wide(double x) { return x; }
  static __device__ __forceinline__ double to_wide(double x) { return x; }
  static __device__ __forceinline__ double one() { return 1.0; }
  static __device__ __forceinline__ double step(double x, double w, double sum) { return ops::fma(x, w, sum); }
};

// Half is float16 or bfloat16, which represents every operand exactly.
template <class Half>
struct LaneHalf {
  using type = std::uint16_t;
  using wide = float;
  template <class F>
  static __device__ __forceinline__ std::uint16_t decode(std::uint32_t bits) {
    if constexpr (F::id == Half::id) {
      return static_cast<std::uint16_t>(bits);
    } else {
      return encode_exact<Half>(decode_f32<F>(bits));
    }
  }
  static __device__ __forceinline__ std::uint16_t from_wide(float x) { return encode_exact<Half>(x); }
  static __device__ __forceinline__ float to_wide(std::uint16_t x) { return decode_f32<Half>(x); }
  static __device__ __forceinline__ std::uint16_t one() { return encode_exact<Half>(1.0f); }
  static __device__ __forceinline__ std::uint16_t step(std::uint16_t x, std::uint16_t w, std::uint16_t sum) {
    if constexpr (Half::id == FormatId::float16) {
      return fma_f16(x, w, sum);
    } else {
      return fma_bf16(x, w, sum);
    }
  }
};

}  // namespace gradkern::cuda
