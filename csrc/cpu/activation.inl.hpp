// Element-wise loops over ops/activation.hpp, in float32 (float64 for float64 storage), and over the elementary
// functions.
#pragma once

#include "cpu/block.inl.hpp"
#include "ops/activation.hpp"
#include "simd/vec.hpp"

namespace gradkern::cpu {
namespace {

// A block's arrays in the lane type, where they are not read and written in place.
template <class V>
struct Block {
  using T = ops::scalar_t<V>;
  static constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  static_assert(block_size % lanes == 0);
  T pre_activation[block_size], grad_output[block_size], output[block_size], slope[block_size], result[block_size];
};

// Entries [first, first + count) of a tensor as whole vectors of lanes: where they lie, or widened into the buffer and
// followed by zeros.
template <class V>
GRADKERN_HD const ops::scalar_t<V>* read_block(formats::FormatId format, const void* stored, std::int64_t first,
                                               std::int64_t count, ops::scalar_t<V>* buffer) {
  using T = ops::scalar_t<V>;
  constexpr auto own = sizeof(T) == 4 ? formats::FormatId::float32 : formats::FormatId::float64;
  if (format == own && count % Block<V>::lanes == 0) return static_cast<const T*>(stored) + first;
  widen(format, stored, first, first + count, buffer);
  for (std::int64_t j = count; j % Block<V>::lanes != 0; ++j) buffer[j] = 0;
  return buffer;
}

// Where a block's results go: to the tensor, or by way of the buffer where they end within a vector.
template <class T>
struct Results {
  T* tensor;
  T* lanes;

  GRADKERN_HD Results(void* wide, std::int64_t first, std::int64_t count, std::int64_t width, T* buffer)
      : tensor(static_cast<T*>(wide) + first), lanes(count % width == 0 ? tensor : buffer) {}
  GRADKERN_HD void finish(std::int64_t count) const {
    if (lanes != tensor) __builtin_memcpy(tensor, lanes, static_cast<unsigned long>(count) * sizeof(T));
  }
};

template <class A, class V>
void evaluate_forward(const ops::scalar_t<V>* z, std::int64_t count, V alpha, ops::scalar_t<V>* h) {
  for (std::int64_t j = 0; j < count; j += Block<V>::lanes)
    ops::canonical_nan(A::forward(V::load(z + j), alpha)).store(h + j);
}

template <class A, class V>
void evaluate_slope(const ops::scalar_t<V>* z, const ops::scalar_t<V>* h, std::int64_t count, V alpha,
                    ops::scalar_t<V>* slopes) {
  for (std::int64_t j = 0; j < count; j += Block<V>::lanes) {
    const V x = V::load(z + j);
    const V slope = h ? ops::derivative_from_output<A>(x, V::load(h + j), alpha) : A::derivative(x, alpha);
    ops::canonical_nan(slope).store(slopes + j);
  }
}

template <class V>
void forward_blocks(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  using T = ops::scalar_t<V>;
  Block<V> block;
  const V alpha(static_cast<T>(args.alpha));
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    const T* z = read_block<V>(args.format, args.pre_activation, first, count, block.pre_activation);
    const Results<T> h(args.wide, first, count, Block<V>::lanes, block.result);
    ops::visit_activation(args.activation, [&](auto a) { evaluate_forward<decltype(a)>(z, count, alpha, h.lanes); });
    h.finish(count);
  });
}

template <class V>
void backward_blocks(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  using T = ops::scalar_t<V>;
  Block<V> block;
  const V alpha(static_cast<T>(args.alpha));
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    const auto read = [&](const void* stored, T* buffer) {
      return read_block<V>(args.format, stored, first, count, buffer);
    };
    const T* z = read(args.pre_activation, block.pre_activation);
    const T* dh = read(args.grad_output, block.grad_output);
    const T* h = args.output ? read(args.output, block.output) : nullptr;
    ops::visit_activation(args.activation,
                          [&](auto a) { evaluate_slope<decltype(a)>(z, h, count, alpha, block.slope); });
    const Results<T> dz(args.wide, first, count, Block<V>::lanes, block.result);
    for (std::int64_t j = 0; j < count; j += Block<V>::lanes)
      ops::canonical_nan(V::load(dh + j) * V::load(block.slope + j)).store(dz.lanes + j);
    dz.finish(count);
    if (args.slope)
      __builtin_memcpy(static_cast<T*>(args.slope) + first, block.slope, static_cast<unsigned long>(count) * sizeof(T));
  });
}

void activation_forward(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.format == formats::FormatId::float64) return forward_blocks<simd::vec_f64>(args, begin, end);
  forward_blocks<simd::vec_f32>(args, begin, end);
}

void activation_backward(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.format == formats::FormatId::float64) return backward_blocks<simd::vec_f64>(args, begin, end);
  backward_blocks<simd::vec_f32>(args, begin, end);
}

template <class V>
GRADKERN_HD void elementary_loop(int function, const ops::scalar_t<V>* x, ops::scalar_t<V>* y, std::int64_t size) {
  constexpr std::int64_t lanes = sizeof(V) / sizeof(ops::scalar_t<V>);
  for (std::int64_t i = 0; i < size; i += lanes) {
    const std::int64_t count = size - i < lanes ? size - i : lanes;
    ops::canonical_nan(ops::elementary(function, V::load_partial(x + i, count))).store_partial(y + i, count);
  }
}

void elementary_f32(int function, const float* x, float* y, std::int64_t size) {
  elementary_loop<simd::vec_f32>(function, x, y, size);
}

void elementary_f64(int function, const double* x, double* y, std::int64_t size) {
  elementary_loop<simd::vec_f64>(function, x, y, size);
}

}  // namespace
}  // namespace gradkern::cpu
