// ldmatrix and mma.sync. A warp holds the matrices in registers, in the layouts of the PTX ISA (section "Matrix
// multiply-accumulate"): with g = lane / 4, t = lane % 4 and e elements in a 32-bit register,
//   register r of A (16 x k, by rows):     row g + 8 * (r & 1), columns (4 * (r >> 1) + t) * e + 0 .. e-1
//   register r of B (k x 8, by columns):   rows (4 * r + t) * e + 0 .. e-1, column g
//   element i of C and D (16 x 8):         row g + 8 * (i >> 1), column 2 * t + (i & 1); float16: two in a register
#pragma once

#include <cstdint>

#include "formats/format.hpp"
#include "mma/units.hpp"
#include "simt/executor.hpp"

namespace gradkern::simt {

// The architecture whose matrix units the executor imitates, for the whole process: that which
// GRADKERN_SIMT_ARCHITECTURE names, as mma::unit_names does, or hopper.
void set_architecture(mma::Unit unit);
mma::Unit architecture();

struct MmaShape {
  formats::FormatId a, b, accumulator;  // float32 or float16
  int k;
};

// d = a * b + c of a warp, all fragments as bits: a and b 32-bit registers, c and d one element each.
void multiply_add(const Site& site, const MmaShape& shape, const std::uint32_t* a, const std::uint32_t* b,
                  std::uint32_t (&accumulators)[4]);

// `count` matrices of 8 rows of 16 bytes; lane l gives row l % 8 of matrix l / 8.
void ldmatrix(const Site& site, std::uint32_t* registers, int count, bool transposed, const void* row);

template <class A, class B, int k>
void mma_float32(const Site& site, float (&d)[4], const std::uint32_t* a, const std::uint32_t* b, const float (&c)[4]) {
  std::uint32_t bits[4];
  for (int i = 0; i < 4; ++i) bits[i] = __builtin_bit_cast(std::uint32_t, c[i]);
  multiply_add(site, {A::id, B::id, formats::FormatId::float32, k}, a, b, bits);
  for (int i = 0; i < 4; ++i) d[i] = __builtin_bit_cast(float, bits[i]);
}

template <class A, class B, int k>
void mma_float16(const Site& site, std::uint32_t (&d)[2], const std::uint32_t* a, const std::uint32_t* b,
                 const std::uint32_t (&c)[2]) {
  std::uint32_t bits[4];
  for (int i = 0; i < 4; ++i) bits[i] = c[i / 2] >> 16 * (i % 2) & 0xFFFF;
  multiply_add(site, {A::id, B::id, formats::FormatId::float16, k}, a, b, bits);
  for (int r = 0; r < 2; ++r) d[r] = bits[2 * r] | bits[2 * r + 1] << 16;
}

}  // namespace gradkern::simt

namespace gradkern::cuda {

template <class F>
inline constexpr bool is_16_bit = F::id == formats::FormatId::float16 || F::id == formats::FormatId::bfloat16;
template <class F>
inline constexpr bool is_8_bit = F::id == formats::FormatId::float8_e4m3fn || F::id == formats::FormatId::float8_e5m2;
template <class F>
inline constexpr bool is_tfloat32 = F::id == formats::FormatId::tfloat32;

// d = a * b + c; F, A and B are storage tags. float accumulators, or pairs of float16 in 32 bits.
template <class F>
  requires is_16_bit<F>
void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                  GRADKERN_SITE) {
  simt::mma_float32<F, F, 16>({"mma_m16n8k16", line, file, function}, d, a, b, c);
}
template <class F>
  requires(F::id == formats::FormatId::float16)
void mma_m16n8k16(std::uint32_t (&d)[2], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  const std::uint32_t (&c)[2], GRADKERN_SITE) {
  simt::mma_float16<F, F, 16>({"mma_m16n8k16", line, file, function}, d, a, b, c);
}
template <class F>
  requires is_16_bit<F>
void mma_m16n8k8(float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1], const float (&c)[4],
                 GRADKERN_SITE) {
  simt::mma_float32<F, F, 8>({"mma_m16n8k8", line, file, function}, d, a, b, c);
}
template <class F>
  requires(F::id == formats::FormatId::float16)
void mma_m16n8k8(std::uint32_t (&d)[2], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1],
                 const std::uint32_t (&c)[2], GRADKERN_SITE) {
  simt::mma_float16<F, F, 8>({"mma_m16n8k8", line, file, function}, d, a, b, c);
}
template <class F>
  requires is_tfloat32<F>
void mma_m16n8k8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                 GRADKERN_SITE) {
  simt::mma_float32<F, F, 8>({"mma_m16n8k8", line, file, function}, d, a, b, c);
}
template <class F>
  requires is_tfloat32<F>
void mma_m16n8k4(float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1], const float (&c)[4],
                 GRADKERN_SITE) {
  simt::mma_float32<F, F, 4>({"mma_m16n8k4", line, file, function}, d, a, b, c);
}
template <class A, class B = A>
  requires(is_8_bit<A> && is_8_bit<B>)
void mma_m16n8k32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                  GRADKERN_SITE) {
  simt::mma_float32<A, B, 32>({"mma_m16n8k32", line, file, function}, d, a, b, c);
}
template <class A, class B = A>
  requires(is_8_bit<A> && is_8_bit<B>)
void mma_m16n8k32(std::uint32_t (&d)[2], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  const std::uint32_t (&c)[2], GRADKERN_SITE) {
  simt::mma_float16<A, B, 32>({"mma_m16n8k32", line, file, function}, d, a, b, c);
}

// Matrices of 8 x 8 16-bit elements from shared memory. row: lane l gives row l % 8 of matrix l / 8.
inline void ldmatrix_x1(std::uint32_t (&r)[1], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x1", line, file, function}, r, 1, false, row);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x2", line, file, function}, r, 2, false, row);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x4", line, file, function}, r, 4, false, row);
}
inline void ldmatrix_x1_trans(std::uint32_t (&r)[1], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x1_trans", line, file, function}, r, 1, true, row);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x2_trans", line, file, function}, r, 2, true, row);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, GRADKERN_SITE) {
  simt::ldmatrix({"ldmatrix_x4_trans", line, file, function}, r, 4, true, row);
}

}  // namespace gradkern::cuda
