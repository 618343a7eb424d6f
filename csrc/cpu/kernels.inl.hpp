// The body of kernels_<isa>.cpp: the same loops, compiled for one instruction set, behind one exported table.
#pragma once

#include "cpu/activation.inl.hpp"
#include "cpu/clip.inl.hpp"
#include "cpu/clip_value.inl.hpp"
#include "cpu/convert.inl.hpp"
#include "cpu/dense.inl.hpp"
#include "cpu/errors.inl.hpp"
#include "cpu/gradual.inl.hpp"
#include "cpu/matvec.inl.hpp"
#include "cpu/mma.inl.hpp"
#include "cpu/roofline.inl.hpp"
#include "cpu/rounded_units.inl.hpp"
#include "cpu/statistics.inl.hpp"
#include "cpu/update.inl.hpp"

namespace gradkern::cpu {
namespace {

// Rows of a register tile of two vectors: with a vector of each column and a splat it fills the registers.
#if defined(GRADKERN_SIMD_AVX512)
inline constexpr int tile_rows = 14;
#elif defined(GRADKERN_SIMD_NEON)
inline constexpr int tile_rows = 12;
#else
inline constexpr int tile_rows = 6;
#endif

void any_unit_product(const UnitProduct& u, const ProductRange& range, char* scratch) {
  if (mma::rounds_each(u.instruction.form)) return rounded_unit_product<tile_rows>(u, range, scratch);
  unit_product(u, range, scratch);
}

constexpr Kernels table(const char* name) {
  constexpr int lanes = simd::vector_bytes / 8, half_of_lanes = lanes == 8 ? 4 : lanes;
  return {
      name,
      simd::vector_bytes,
      convert,
      product<formats::float32, simd::vec_f32, tile_rows, 2>,
      product<formats::float32, simd::vec_f64, 4, 2>,
      product<formats::float64, simd::vec_f64, tile_rows, 2>,
      product<formats::float16, simd::vec_f64, 2, 2>,
      product<formats::bfloat16, simd::vec_f64, 2, 2>,
#if defined(GRADKERN_SIMD_AVX512FP16)
      product<formats::float16, simd::vec_f16, tile_rows, 2>,
#else
      nullptr,
#endif
      any_unit_product,
      widen<float>,
      widen<double>,
      matvec,
      activation_forward,
      activation_backward,
      measure<lanes>,
      measure<half_of_lanes>,
      errors,
      clip_survey,
      clip_scale,
      clip_clamp,
      update,
      elementary_f32,
      elementary_f64,
      multiply_adds,
  };
}

}  // namespace
}  // namespace gradkern::cpu
