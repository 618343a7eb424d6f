// The result of a product as kernels see it, and four neighbours of it at once.
#pragma once

#include "cuda/lanes.hpp"
#include "executor/kernels.hpp"

namespace gradkern::cuda {

struct Epilogue {
  void* wide;
  const void* bias;
  FormatId bias_format;
  std::int64_t bias_row;
  bool continued;
  bool aligned;  // rows of wide, to 16 bytes
};

inline Epilogue epilogue_of(const executor::ProductArgs& args) {
  return {args.wide,
          args.bias,
          args.bias_format,
          args.bias_row,
          args.continued != nullptr,
          args.n % 4 == 0 && reinterpret_cast<std::uintptr_t>(args.wide) % 16 == 0};
}

// Four neighbours of the result, of which `count` exist.
template <class Wide>
__device__ __forceinline__ void load_four(const Wide* from, int count, bool aligned, Wide (&x)[4]) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(Wide) == 4) {
      const auto four = base::bit_cast<float4>(load_128(from));
      x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
    } else {
      const auto low = base::bit_cast<double2>(load_128(from)), high = base::bit_cast<double2>(load_128(from + 2));
      x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
    }
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = e < count ? load(from + e) : Wide(0);
  }
}

template <class Wide>
__device__ __forceinline__ void store_four(Wide* to, int count, bool aligned, const Wide (&x)[4]) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(Wide) == 4) {
      store_128(to, base::bit_cast<uint4>(float4{x[0], x[1], x[2], x[3]}));
    } else {
      store_128(to, base::bit_cast<uint4>(double2{x[0], x[1]}));
      store_128(to + 2, base::bit_cast<uint4>(double2{x[2], x[3]}));
    }
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (e < count) store(to + e, x[e]);
    }
  }
}

}  // namespace gradkern::cuda
