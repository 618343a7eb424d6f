// wide[i] = phi(z), or dh phi'(z) and the slope phi'(z) itself, by ops/activation.hpp: in float32, in float64 for float64
// storage. Every NaN is the positive one. A thread takes one group of entries: 128 bits of the lane type, at once where
// all of it is there.
#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "ops/activation.hpp"

namespace gradkern::cuda {
namespace {

using executor::ActivationArgs;

constexpr int threads = 256;

template <class T>
constexpr int group = 16 / static_cast<int>(sizeof(T));

// The thread's entries of a tensor. Made where they are used, so that nothing of it waits in registers.
template <class T>
struct Group {
  static constexpr int n = group<T>;
  std::int64_t first, size;
  bool whole;

  __device__ __forceinline__ Group(std::int64_t all, bool vectors)
      : first((std::int64_t(blockIdx.x) * threads + thread_anew()) * n),
        size(all),
        whole(vectors && is_whole(first, all)) {}

  // What does not exist is zero. float64 lanes are of float64 storage only, float32 lanes of all the rest.
  __device__ __forceinline__ void load(FormatId format, const void* data, T (&x)[n]) const {
    if (whole) {
      if constexpr (sizeof(T) == 8) {
        load_group_of<formats::float64>(data, first, x);
      } else {
        load_group(format, data, first, x);
      }
    } else {
#pragma unroll 1
      for (int k = 0; k < n; ++k) {
        T entry = 0;
        if (first + k < size) {
          if constexpr (sizeof(T) == 8) {
            entry = cuda::load(static_cast<const T*>(data) + first + k);
          } else {
            entry = static_cast<T>(load_entry(format, data, first + k));
          }
        }
        shift_in(x, entry);
      }
    }
  }

  __device__ __forceinline__ void store(T* to, T (&x)[n]) const {
    if (whole) return store_values(to + first, x);
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (first + k < size) cuda::store(to + first + k, x[k]);
  }
};

template <class A, class T>
__device__ __forceinline__ T forward_of(T z, T alpha) {
  return ops::canonical_nan(A::forward(z, alpha));
}

template <class A, class T>
__device__ __forceinline__ T slope_of(T z, bool stored, T h, T alpha) {
  return ops::canonical_nan(stored ? ops::derivative_from_output<A>(z, h, alpha) : A::derivative(z, alpha));
}

template <class A, class T>
__global__ void __launch_bounds__(threads, 6) forward_kernel(const ActivationArgs args, bool vectors) {
  constexpr int n = Group<T>::n;
  const auto group = [&] { return Group<T>(args.size, vectors); };
  const T alpha = static_cast<T>(args.alpha);
  T x[n] = {};
  group().load(args.format, args.pre_activation, x);
#pragma unroll entries_at_once < T>
  for (int k = 0; k < n; ++k) shift_in(x, forward_of<A>(x[0], alpha));
  group().store(static_cast<T*>(args.wide), x);
}

// Blocks of a multiprocessor at once: six leave 40 registers, too few for what these two divide at once in float64.
template <class A, class T>
inline constexpr int backward_blocks =
    sizeof(T) == 8 && (std::is_same_v<A, ops::gelu> || std::is_same_v<A, ops::gelu_tanh>) ? 5 : 6;

template <class A, class T>
__global__ void __launch_bounds__(threads, (backward_blocks<A, T>))
    backward_kernel(const ActivationArgs args, bool vectors) {
  constexpr int n = Group<T>::n;
  const auto group = [&] { return Group<T>(args.size, vectors); };
  const T alpha = static_cast<T>(args.alpha);
  const bool stored = args.output;
  T x[n] = {}, h[n] = {};
  group().load(args.format, args.pre_activation, x);
  if (stored) group().load(args.format, args.output, h);
#pragma unroll entries_at_once < T>
  for (int k = 0; k < n; ++k) {
    shift_in(x, slope_of<A>(x[0], stored, h[0], alpha));
    shift_in(h, T(0));
  }
  if (args.slope) group().store(static_cast<T*>(args.slope), x);
  group().load(args.format, args.grad_output, h);
#pragma unroll
  for (int k = 0; k < n; ++k) x[k] = ops::canonical_nan(h[k] * x[k]);
  group().store(static_cast<T*>(args.wide), x);
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
