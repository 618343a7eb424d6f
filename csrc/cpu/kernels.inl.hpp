// The body of kernels_<isa>.cpp: the same loops, compiled for one instruction set, behind one exported table.
#pragma once

#include "cpu/activation.inl.hpp"
#include "cpu/convert.inl.hpp"
#include "cpu/dense.inl.hpp"
#include "cpu/statistics.inl.hpp"

namespace gradkern::cpu {
namespace {

// 4 x 2 accumulators, 2 columns of b and a splat fit 16 vector registers.
constexpr Kernels table(const char* name) {
  return {
      name,
      simd::vector_bytes,
      convert,
      product<formats::float32, simd::vec_f32, 4, 2>,
      product<formats::float64, simd::vec_f64, 4, 2>,
      product<formats::float16, simd::vec_f64, 2, 2>,
      product<formats::bfloat16, simd::vec_f64, 2, 2>,
      activation_forward,
      activation_backward,
      measure,
      elementary_f32,
      elementary_f64,
  };
}

}  // namespace
}  // namespace gradkern::cpu
