// y[i] = f(x[i]), a NaN being the positive one: the elementary functions of ops/elementary.hpp, in float32 or float64.
#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "ops/elementary.hpp"

namespace gradkern::cuda {
namespace {

constexpr int threads = 256;

template <class T>
constexpr int group = 16 / static_cast<int>(sizeof(T));

template <int function, class T>
__device__ __forceinline__ T evaluate(T x) {
  return ops::canonical_nan(ops::elementary(function, x));
}

template <int function, class T>
__global__ void __launch_bounds__(threads, 6) elementary_kernel(const T* x, T* y, std::int64_t size, bool vectors) {
  constexpr int n = group<T>;
  const std::int64_t first = (std::int64_t(blockIdx.x) * threads + threadIdx.x) * n;
  const bool whole = vectors && first + n <= size;
  T value[n] = {};
  if (whole) {
    load_values(x + first, value);
  } else {
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (first + k < size) value[k] = load(x + first + k);
  }
#pragma unroll entries_at_once < T>
  for (int k = 0; k < n; ++k) shift_in(value, evaluate<function>(value[0]));
  if (whole) return store_values(y + first, value);
#pragma unroll
  for (int k = 0; k < n; ++k)
    if (first + k < size) store(y + first + k, value[k]);
}

template <class T, int function = 0>
int elementary(int which, const T* x, T* y, std::int64_t size, Stream stream) {
  if constexpr (function + 1 < ops::elementary_count) {
    if (which != function) return elementary<T, function + 1>(which, x, y, size, stream);
  }
  constexpr std::int64_t tile = threads * group<T>;
  const dim3 blocks(static_cast<unsigned>((size + tile - 1) / tile));
  return launch(elementary_kernel<function, T>, blocks, dim3(threads), 0, static_cast<stream_t>(stream), x, y, size,
                aligned(x) && aligned(y));
}

}  // namespace

int elementary_f32(int function, const float* x, float* y, std::int64_t size, Stream stream) {
  return size ? elementary(function, x, y, size, stream) : 0;
}

int elementary_f64(int function, const double* x, double* y, std::int64_t size, Stream stream) {
  return size ? elementary(function, x, y, size, stream) : 0;
}

}  // namespace gradkern::cuda
