// wide[i] = phi(z), or dh phi'(z) and the slope phi'(z) itself, by ops/activation.hpp: in float32, in float64 for float64
// storage. Every NaN is the positive one. A thread takes one group of entries: 128 bits of the lane type.
#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "ops/activation.hpp"

namespace gradkern::cuda {
namespace {

using executor::ActivationArgs;

constexpr int threads = 256;

template <class T>
constexpr int group = 16 / static_cast<int>(sizeof(T));

// float64 lanes are of float64 storage only, float32 lanes of all the rest.
template <class T, int n>
__device__ __forceinline__ void load_lanes(FormatId format, const void* data, std::int64_t first, T (&x)[n]) {
  if constexpr (sizeof(T) == 8) {
    load_group_of<formats::float64>(data, first, x);
  } else {
    load_group(format, data, first, x);
  }
}

template <class T>
__device__ __forceinline__ T load_lane(FormatId format, const void* data, std::int64_t index) {
  if constexpr (sizeof(T) == 8) return load(static_cast<const T*>(data) + index);
  return static_cast<T>(load_entry(format, data, index));
}

template <class A, class T>
__device__ __forceinline__ T forward_of(T z, T alpha) {
  return ops::canonical_nan(A::forward(z, alpha));
}

template <class A, class T>
__device__ __forceinline__ T slope_of(T z, bool stored, T h, T alpha) {
  return ops::canonical_nan(stored ? ops::derivative_from_output<A>(z, h, alpha) : A::derivative(z, alpha));
}

template <class A, class T>
__global__ void __launch_bounds__(threads) forward_kernel(const ActivationArgs args, bool vectors) {
  constexpr int n = group<T>;
  const std::int64_t first = (std::int64_t(blockIdx.x) * threads + threadIdx.x) * n;
  const T alpha = static_cast<T>(args.alpha);
  T* const wide = static_cast<T*>(args.wide);
  if (vectors && first + n <= args.size) {
    T x[n];
    load_lanes(args.format, args.pre_activation, first, x);
#pragma unroll entries_at_once < T>
    for (int k = 0; k < n; ++k) shift_in(x, forward_of<A>(x[0], alpha));
    store_values(wide + first, x);
  } else {
    for (std::int64_t i = first; i < first + n && i < args.size; ++i)
      store(wide + i, forward_of<A>(load_lane<T>(args.format, args.pre_activation, i), alpha));
  }
}

template <class A, class T>
__global__ void __launch_bounds__(threads) backward_kernel(const ActivationArgs args, bool vectors) {
  constexpr int n = group<T>;
  const std::int64_t first = (std::int64_t(blockIdx.x) * threads + threadIdx.x) * n;
  const T alpha = static_cast<T>(args.alpha);
  const bool stored = args.output;
  T *const wide = static_cast<T*>(args.wide), *const slope = static_cast<T*>(args.slope);
  if (vectors && first + n <= args.size) {
    T x[n], h[n] = {};
    load_lanes(args.format, args.pre_activation, first, x);
    if (stored) load_lanes(args.format, args.output, first, h);
#pragma unroll entries_at_once < T>
    for (int k = 0; k < n; ++k) {
      shift_in(x, slope_of<A>(x[0], stored, h[0], alpha));
      shift_in(h, T(0));
    }
    if (slope) store_values(slope + first, x);
    load_lanes(args.format, args.grad_output, first, h);
#pragma unroll
    for (int k = 0; k < n; ++k) x[k] = ops::canonical_nan(h[k] * x[k]);
    store_values(wide + first, x);
  } else {
    for (std::int64_t i = first; i < first + n && i < args.size; ++i) {
      const T z = load_lane<T>(args.format, args.pre_activation, i);
      const T h = stored ? load_lane<T>(args.format, args.output, i) : T(0);
      const T derivative = slope_of<A>(z, stored, h, alpha);
      if (slope) store(slope + i, derivative);
      store(wide + i, ops::canonical_nan(load_lane<T>(args.format, args.grad_output, i) * derivative));
    }
  }
}

template <class T, class Launch>
int for_activation(const ActivationArgs& args, Launch launch_kernel) {
  constexpr std::int64_t tile = threads * group<T>;
  const dim3 blocks(static_cast<unsigned>((args.size + tile - 1) / tile));
  int error = 0;
  ops::visit_activation(args.activation, [&](auto a) { error = launch_kernel(a, blocks); });
  return error;
}

template <class T>
int forward(const ActivationArgs& args, Stream stream) {
  const bool vectors = aligned(args.pre_activation) && aligned(args.wide);
  return for_activation<T>(args, [&](auto a, dim3 blocks) {
    return launch(forward_kernel<decltype(a), T>, blocks, dim3(threads), 0, static_cast<stream_t>(stream), args,
                  vectors);
  });
}

template <class T>
int backward(const ActivationArgs& args, Stream stream) {
  const bool vectors = aligned(args.pre_activation) && aligned(args.grad_output) && aligned(args.output) &&
                       aligned(args.wide) && aligned(args.slope);
  return for_activation<T>(args, [&](auto a, dim3 blocks) {
    return launch(backward_kernel<decltype(a), T>, blocks, dim3(threads), 0, static_cast<stream_t>(stream), args,
                  vectors);
  });
}

}  // namespace

int activation_forward(const ActivationArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  return args->format == FormatId::float64 ? forward<double>(*args, stream) : forward<float>(*args, stream);
}

int activation_backward(const ActivationArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  return args->format == FormatId::float64 ? backward<double>(*args, stream) : backward<float>(*args, stream);
}

}  // namespace gradkern::cuda
