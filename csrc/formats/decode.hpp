// decode<F>(bits): the value of a bit pattern, exact, as a double. NaN stays NaN with its sign; payloads are not kept.
#pragma once

#include "base/bits.hpp"
#include "formats/format.hpp"

namespace gradkern::formats {

template <class F>
GRADKERN_HD double decode(typename F::container stored) {
  if constexpr (F::id == FormatId::float64) {
    return base::bit_cast<double>(stored);
  } else if constexpr (F::id == FormatId::float32 || F::id == FormatId::tfloat32) {
    return base::bit_cast<float>(stored);
  } else {
    using L = Layout<F>;
    const std::uint64_t bits = stored;
    const std::uint64_t sign = (bits & L::sign) << (64 - L::bits);
    const std::uint64_t magnitude = bits & (L::sign - 1);
    constexpr int fraction_shift = 52 - L::fraction_bits;
    if (magnitude > L::max_finite) {
      const bool infinite = F::has_inf && magnitude == L::infinity;
      return base::bit_cast<double>(sign | (infinite ? 0x7FF0000000000000u : 0x7FF8000000000000u));
    }
    if (magnitude < L::smallest_normal) {  // an integer multiple of the smallest subnormal
      const double value = static_cast<double>(static_cast<std::int64_t>(magnitude)) * exp2i(L::min_quantum);
      return base::bit_cast<double>(sign | base::bit_cast<std::uint64_t>(value));
    }
    const std::uint64_t rebias = std::uint64_t(1023 - F::bias) << 52;
    return base::bit_cast<double>(sign | ((magnitude << fraction_shift) + rebias));
  }
}

}  // namespace gradkern::formats
