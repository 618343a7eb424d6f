// float16 on bits, and bfloat16. fma is rounded once: the exact x * y + z rounded to odd in double, then to the format.
#pragma once

#include <cstdint>

#include "base/bits.hpp"
#include "formats/decode.hpp"
#include "formats/encode.hpp"

namespace gradkern::simt {

template <class F>
std::uint16_t fma_bits(std::uint16_t x, std::uint16_t y, std::uint16_t z) {
  const double product = formats::decode<F>(x) * formats::decode<F>(y), addend = formats::decode<F>(z);  // exact
  double sum = product + addend;
  if (sum - sum == 0) {
    const double added = sum - product;
    const double error = (product - (sum - added)) + (addend - added);
    const auto bits = base::bit_cast<std::int64_t>(sum);
    if (error != 0 && !(bits & 1)) sum = base::bit_cast<double>(bits + ((error > 0) == (sum > 0) ? 1 : -1));
  }
  if (sum != sum) return static_cast<std::uint16_t>(formats::Layout<F>::quiet_nan);
  return formats::encode<F>(sum, formats::Mode{}).bits;
}

}  // namespace gradkern::simt

namespace gradkern::cuda {

inline float float_of_f16(std::uint16_t x) { return static_cast<float>(formats::decode<formats::float16>(x)); }

// x * y + z, rounded once, to nearest even; subnormals are kept, every NaN is the positive quiet one.
inline std::uint16_t fma_f16(std::uint16_t x, std::uint16_t y, std::uint16_t z) {
  return simt::fma_bits<formats::float16>(x, y, z);
}
// Of two float16 in a word each.
inline std::uint32_t add_f16x2(std::uint32_t x, std::uint32_t y) {
  constexpr std::uint16_t one = 0x3C00;
  const std::uint32_t low = fma_f16(one, static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)),
                      high = fma_f16(one, static_cast<std::uint16_t>(x >> 16), static_cast<std::uint16_t>(y >> 16));
  return low | high << 16;
}
inline std::uint16_t fma_bf16(std::uint16_t x, std::uint16_t y, std::uint16_t z) {
  return simt::fma_bits<formats::bfloat16>(x, y, z);
}

}  // namespace gradkern::cuda
