// Element-wise loops over ops/activation.hpp, in float32 (float64 for float64 storage), and over the elementary
// functions.
#pragma once

#include "cpu/block.inl.hpp"
#include "ops/activation.hpp"
#include "simd/vec.hpp"

namespace gradkern::cpu {
namespace {

// A block's arrays in the lane type. Whole vectors are evaluated: entries beyond the count are stale but harmless.
template <class V>
struct Block {
  using T = ops::scalar_t<V>;
  static constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  static_assert(block_size % lanes == 0);
  T pre_activation[block_size] = {}, grad_output[block_size] = {}, output[block_size] = {}, slope[block_size] = {};
};

template <class A, class V>
void evaluate_forward(Block<V>& block, std::int64_t count, V alpha) {
  for (std::int64_t j = 0; j < count; j += Block<V>::lanes) {
    ops::canonical_nan(A::forward(V::load(block.pre_activation + j), alpha)).store(block.output + j);
  }
}

template <class A, class V>
void evaluate_slope(Block<V>& block, std::int64_t count, V alpha, bool from_output) {
  for (std::int64_t j = 0; j < count; j += Block<V>::lanes) {
    const V z = V::load(block.pre_activation + j);
    const V slope =
        from_output ? ops::derivative_from_output<A>(z, V::load(block.output + j), alpha) : A::derivative(z, alpha);
    ops::canonical_nan(slope).store(block.slope + j);
  }
}

template <class V>
void forward_blocks(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  Block<V> block;
  const V alpha(static_cast<ops::scalar_t<V>>(args.alpha));
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    widen(args.format, args.pre_activation, first, first + count, block.pre_activation);
    ops::visit_activation(args.activation, [&](auto a) { evaluate_forward<decltype(a)>(block, count, alpha); });
    __builtin_memcpy(static_cast<ops::scalar_t<V>*>(args.wide) + first, block.output,
                     static_cast<unsigned long>(count) * sizeof block.output[0]);
  });
}

template <class V>
void backward_blocks(const executor::ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  using T = ops::scalar_t<V>;
  Block<V> block;
  const V alpha(static_cast<ops::scalar_t<V>>(args.alpha));
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    widen(args.format, args.pre_activation, first, first + count, block.pre_activation);
    widen(args.format, args.grad_output, first, first + count, block.grad_output);
    if (args.output) widen(args.format, args.output, first, first + count, block.output);
    ops::visit_activation(args.activation,
                          [&](auto a) { evaluate_slope<decltype(a)>(block, count, alpha, args.output != nullptr); });
    for (std::int64_t j = 0; j < count; j += Block<V>::lanes) {
      const V product = V::load(block.grad_output + j) * V::load(block.slope + j);
      ops::canonical_nan(product).store(block.output + j);
    }
    const auto bytes = static_cast<unsigned long>(count) * sizeof(T);
    __builtin_memcpy(static_cast<T*>(args.wide) + first, block.output, bytes);
    if (args.slope) __builtin_memcpy(static_cast<T*>(args.slope) + first, block.slope, bytes);
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
GRADKERN_HD V elementary(int function, V x) {
  switch (function) {
    case 0:
      return ops::exp(x);
    case 1:
      return ops::expm1(x);
    case 2:
      return ops::log1p(x);
    case 3:
      return ops::tanh(x);
    case 4:
      return ops::sigmoid(x);
    case 5:
      return ops::erf(x);
    case 6:
      return ops::erfc(x);
    case 7:
      return ops::normal_cdf(x);
    case 8:
      return ops::normal_pdf(x);
    case 9:
      return ops::sigmoid_derivative(x);
    default:
      return ops::tanh_derivative(x);
  }
}

template <class V>
GRADKERN_HD void elementary_loop(int function, const ops::scalar_t<V>* x, ops::scalar_t<V>* y, std::int64_t size) {
  constexpr std::int64_t lanes = sizeof(V) / sizeof(ops::scalar_t<V>);
  for (std::int64_t i = 0; i < size; i += lanes) {
    const std::int64_t count = size - i < lanes ? size - i : lanes;
    ops::canonical_nan(elementary(function, V::load_partial(x + i, count))).store_partial(y + i, count);
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
