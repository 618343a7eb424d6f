// The scalar models of units that round after each operation: instructions of CPUs and CUDA cores, and products of
// libraries. Raw bit patterns in, the raw pattern of one output out; a dot product is a walk of k ascending from c.
//
//   amx            TDPBF16PS: of 32 products the even and the odd ones are two chains from +0, e and o; then c + (e + o)
//   pairs          VDPBF16PS: c = a0 b0 + (a1 b1 + c)
//   fused_half     c = a b + c in float16, rounded once
//   separate_half  c = (a b) + c in float16, rounded twice
//   rounded_float  c = a b + c in float32, rounded once; the last sum to float16
//   fused_float    c = a b + c in float32, rounded once
//   interleaved    ATen, both operands row by row: four chains in float32, k mod 4, those left over in the first
//   registers      ATen, right operand column by column: eight registers of eight chains, then one more, then one by one
// amx and pairs read subnormals as zeros and write zeros for them, a result that is tiny after its rounding; the rest
// keep them. Every rounding is to nearest, ties to even. Any NaN becomes the canonical one.
#pragma once

#include "base/bits.hpp"
#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "mma/units.hpp"
#include "ops/dense.hpp"

namespace gradkern::mma {

// torch 2.13 on one thread: above so many multiply-adds oneDNN multiplies.
inline constexpr std::int64_t torch_threshold = 4096;

// oneDNN's blocks of a sum in bfloat16: as few as tiles of 32 are, of one even size where there is such a size.
constexpr int onednn_block(std::int64_t k) {
  for (int size = 32; size > 0; size -= 2)
    if (k % size == 0) return k / size == (k + 31) / 32 ? size : 32;
  return 32;
}

// What multiplies a product of torch's; its k is 0 where that is not known. By columns: consecutive k of the left operand
// lie apart, of the right one together. oneDNN packs such a left operand into tiles, and long sums by rules of its own.
constexpr Instruction torch_instruction(Instruction i, std::int64_t m, std::int64_t k, std::int64_t n,
                                        bool left_by_columns, bool right_by_columns) {
  const bool bfloat = i.a == FormatId::bfloat16;
  if (left_by_columns && right_by_columns) return {};
  if (m * k * n <= torch_threshold) {
    i.form = left_by_columns ? Form::fused_float : right_by_columns ? Form::registers : Form::interleaved;
  } else if (bfloat) {
    i.form = Form::amx;
    i.k = left_by_columns ? 32 : onednn_block(k);
    if (k > 256 || (k > 128 && i.k < 32)) return {};
  } else {
    i.form = Form::fused_float;
    if (k > 512) return {};
  }
  return i;
}

// How the units read and write.
GRADKERN_HD double value_of(FormatId format, std::uint32_t bits) {
  const auto half = static_cast<std::uint16_t>(bits);
  if (format == FormatId::float16) return formats::decode<formats::float16>(half);
  if (format == FormatId::bfloat16) return formats::decode<formats::bfloat16>(half);
  return formats::decode<formats::float32>(bits);
}

GRADKERN_HD double to_half(double x) {
  return formats::decode<formats::float16>(formats::encode<formats::float16>(x, {}).bits);
}

GRADKERN_HD std::uint32_t pattern_of(FormatId accumulate, double x) {
  if (accumulate == FormatId::float16) return x == x ? formats::encode<formats::float16>(x, {}).bits : 0x7FFFu;
  return x == x ? formats::encode<formats::float32>(x, {}).bits : 0x7FFFFFFFu;
}

// The exact a b + c, rounded to float32 by one rounding.
GRADKERN_HD float fused(double a, double b, double c) { return static_cast<float>(ops::add_to_odd(a * b, c)); }

GRADKERN_HD double without_subnormals(double x) { return x < 0x1p-126 && x > -0x1p-126 ? ops::copysign(0.0, x) : x; }

// As fused, without subnormals: what rounds to the smallest normal number is none.
GRADKERN_HD float fused_flushed(double a, double b, double c) {
  const double sum = ops::add_to_odd(without_subnormals(a) * without_subnormals(b), without_subnormals(c));
  const double tiny = 0x1p-126 - 0x1p-151;
  return static_cast<float>(sum < tiny && sum > -tiny ? ops::copysign(0.0, sum) : sum);
}

GRADKERN_HD float add_flushed(float a, float b) {
  const double sum = without_subnormals(a) + without_subnormals(b);
  return static_cast<float>(without_subnormals(static_cast<float>(sum)));
}

// Both operands of a walk; products beyond its end are zero.
struct Operands16 {
  FormatId format;
  const std::uint32_t *a, *b;
  std::int64_t size;
  GRADKERN_HD double left(std::int64_t k) const { return k < size ? value_of(format, a[k]) : 0.0; }
  GRADKERN_HD double right(std::int64_t k) const { return k < size ? value_of(format, b[k]) : 0.0; }
  GRADKERN_HD float flushed(std::int64_t k, float c) const { return fused_flushed(left(k), right(k), c); }
  GRADKERN_HD float kept(std::int64_t k, float c) const { return fused(left(k), right(k), c); }
};

// Of a block of k; what a tile has besides is zero.
GRADKERN_HD float amx(Operands16 p, std::int64_t first, std::int64_t count, float c) {
  float even = 0, odd = 0;
  p.size = first + count < p.size ? first + count : p.size;
  for (std::int64_t k = first; k < first + 32; k += 2) {
    even = p.flushed(k, even);
    odd = p.flushed(k + 1, odd);
  }
  return add_flushed(c, add_flushed(even, odd));
}

GRADKERN_HD float interleaved(const Operands16& p) {
  float sums[4] = {};
  const std::int64_t whole = p.size / 4 * 4;
  for (std::int64_t k = 0; k < p.size; ++k) sums[k < whole ? k % 4 : 0] = p.kept(k, sums[k < whole ? k % 4 : 0]);
  return ((sums[0] + sums[1]) + sums[2]) + sums[3];
}

// The sum of eight lanes: by halves.
GRADKERN_HD float fold(float* lanes) {
  for (int half = 4; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

GRADKERN_HD float registers(const Operands16& p) {
  float many[64] = {}, one[8] = {};
  const std::int64_t by_64 = p.size / 64 * 64, by_16 = p.size / 16 * 16;
  for (std::int64_t k = 0; k < by_64; ++k) many[k % 64] = p.kept(k, many[k % 64]);
  for (int half = 32; half >= 8; half /= 2)
    for (int i = 0; i < half; ++i) many[i] += many[i + half];
  for (std::int64_t k = by_64; k < by_16; ++k) one[k % 8] = p.kept(k, one[k % 8]);
  float sum = fold(many) + fold(one);
  for (std::int64_t k = by_16; k < p.size; ++k) sum = p.kept(k, sum);
  return sum;
}

GRADKERN_HD std::uint32_t walk_rounding_each(const Instruction& i, const std::uint32_t* a, const std::uint32_t* b,
                                             std::int64_t size, std::uint32_t c) {
  const Operands16 p{i.a, a, b, size};
  const double start = value_of(i.accumulate, c);
  float sum = static_cast<float>(start);
  switch (i.form) {
    case Form::amx:
      for (std::int64_t k = 0; k < size; k += i.k) sum = amx(p, k, i.k, sum);
      break;
    case Form::pairs:
      for (std::int64_t k = 0; k < size; k += 2) sum = p.flushed(k, p.flushed(k + 1, sum));
      break;
    case Form::fused_half:
      for (std::int64_t k = 0; k < size; ++k)
        sum = static_cast<float>(to_half(ops::add_to_odd(p.left(k) * p.right(k), static_cast<double>(sum))));
      break;
    case Form::separate_half:
      for (std::int64_t k = 0; k < size; ++k)
        sum = static_cast<float>(to_half(to_half(p.left(k) * p.right(k)) + static_cast<double>(sum)));
      break;
    case Form::interleaved:
    case Form::registers:
      sum += i.form == Form::registers ? registers(p) : interleaved(p);
      break;
    default:
      for (std::int64_t k = 0; k < size; ++k) sum = p.kept(k, sum);
  }
  return pattern_of(i.accumulate, static_cast<double>(sum));
}

}  // namespace gradkern::mma
