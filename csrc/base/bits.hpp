// Reinterpret the bits of a value as another type of the same size.
#pragma once

#include "base/platform.hpp"

namespace gradkern::base {

template <class To, class From>
GRADKERN_HD constexpr To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

}  // namespace gradkern::base
